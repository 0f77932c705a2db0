import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from gopd_lightning.data import PromptEncoder
from gopd_lightning.records import Prompt

TEMPLATE = (
    "{% for m in messages %}<s> {{ m.role }} {{ m.content }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant{% if not enable_thinking | default(true) %} nothink{% endif %}{% endif %}"
)
WORDS = "user assistant system nothink a b c d e f one two three".split()


def make_tokenizer(around: str = "$A", **settings: Any) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = TemplateProcessing(single=around, special_tokens=[("<s>", 1), ("</s>", 2)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | settings
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(chat_template=TEMPLATE)


@pytest.fixture
def encoder(tokenizer) -> PromptEncoder:
    return PromptEncoder(tokenizer, None, "student")


@pytest.fixture
def write(tmp_path) -> Callable[..., str]:
    def write_rows(name: str, *rows: Any) -> str:
        path = Path(tmp_path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    return write_rows


@pytest.fixture
def make_prompts() -> Callable[..., list[Prompt]]:
    def make(count: int, dataset: str = "math", first: int = 0) -> list[Prompt]:
        uids = range(first, first + count)
        return [Prompt(uid=i, domain=dataset, dataset=dataset, text=f"{i}", ids=[i]) for i in uids]

    return make
