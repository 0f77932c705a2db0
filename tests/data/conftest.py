import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from word_tokenizer import TEMPLATE, make_tokenizer

from gopd_lightning.data import PromptEncoder
from gopd_lightning.records import Prompt


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
