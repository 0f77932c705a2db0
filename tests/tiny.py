"""Tiny real models for tests: Qwen3 folders with a character tokenizer, made in a fraction of a second."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

CHARACTERS = "abcdefghij0123456789+-*/= \n\\{}.,:;QA?"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if tag %}{{ tag }}{% endif %}A:"


def tokenizer(template: str | None = None, characters: str = CHARACTERS) -> PreTrainedTokenizerFast:
    """One id a character, after <pad> and <eos>."""
    vocab = {token: i for i, token in enumerate(["<pad>", "<eos>", *characters])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    out = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")
    out.chat_template = template
    return out


def model(
    folder: Path,
    *,
    seed: int = 0,
    hidden: int = 32,
    padding: int = 0,
    template: str | None = None,
    characters: str = CHARACTERS,
    context: int = 128,
) -> str:
    """Save a random model with its tokenizer; returns the folder as text."""
    words = tokenizer(template, characters)
    torch.manual_seed(seed)
    config = Qwen3Config(
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=2 * hidden,
        vocab_size=len(words) + padding,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
        initializer_range=0.2,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def prompts(file: Path, domain: str, count: int = 16, start: int = 0, **extra: str) -> str:
    """A JSONL file of short prompts; returns its path as text."""
    rows = [
        {"prompt": f"Q{i % 10}+{i}=", "domain": domain, "answer": str(i % 10), **extra}
        for i in range(start, start + count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)
