"""Random Qwen3 models with a tokenizer of as many words as they have ids, for a machine without a model hub."""

import json
import random
from functools import partial
from pathlib import Path

import torch
from models import CACHE, kept, perturb
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

# hidden size, MLP size, layers, heads, key and value heads, head size, ids: the published configurations
SHAPES = {
    "tiny": (64, 128, 2, 2, 1, 32, 512),  # for a run of this script on a CPU
    "0.6B": (1024, 3072, 28, 16, 8, 128, 151936),
    "1.7B": (2048, 6144, 28, 16, 8, 128, 151936),
}


def qwen3(shape: str, name: str, seed: int) -> Path:
    """The folder of a model: of one shape, all are the same weights with other noise.

    Args:
        shape: One of `SHAPES`.
        name: What the folder is called.
        seed: Of the noise.
    """
    return kept(CACHE / "qwen3" / shape / name, partial(_make, shape, seed))


def prompts(shape: str, count: int, length: int) -> Path:
    """A JSONL file of prompts of random words, all of domain `words`."""
    chance, words = random.Random(0), SHAPES[shape][-1]
    file = CACHE / "qwen3" / shape / f"prompts-{count}-{length}.jsonl"
    rows = [" ".join(f"w{chance.randrange(1, words)}" for _ in range(length)) for _ in range(count)]
    file.write_text("".join(json.dumps({"prompt": text, "domain": "words"}) + "\n" for text in rows))
    return file


def config(shape: str) -> Qwen3Config:
    """The configuration of a shape."""
    hidden, inner, layers, heads, shared, size, words = SHAPES[shape]
    return Qwen3Config(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        head_dim=size,
        vocab_size=words,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
    )


def _make(shape: str, seed: int, folder: Path) -> None:
    torch.manual_seed(0)
    made = Qwen3ForCausalLM(config(shape))
    perturb(made, seed)
    made.save_pretrained(folder)
    words = Tokenizer(WordLevel({"<eos>": 0} | {f"w{i}": i for i in range(1, SHAPES[shape][-1])}, unk_token="<eos>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>").save_pretrained(folder)
