"""Builds the data of the nano experiment: `python -m gopd_lightning.nano.build --out FOLDER --seed 0`.

Writes tokenizer/, corpus.jsonl, {math,code}_{train,val,test}.jsonl and model/, a small Qwen3 with random
weights. The same seed gives the same bytes.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from random import Random

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from gopd_lightning.nano.corpus import Record, document, prompt_rows
from gopd_lightning.nano.tokenizer import CONTEXT, train_tokenizer

DOMAINS = ("math", "code")
SPLITS = {"test": 2048, "val": 512, "train": 6000}
DOCUMENTS = 80_000


def build(folder: Path, seed: int, documents: int = DOCUMENTS, splits: dict[str, int] | None = None) -> None:
    """Write the whole experiment's data.

    Args:
        folder: Where to; files of an earlier build are replaced.
        seed: Every draw depends on it, and on nothing else.
        documents: Number of corpus documents.
        splits: Rows a domain of "test", "val" and "train"; by default `SPLITS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = SPLITS if splits is None else splits
    withheld: set[str] = set()
    for domain in DOMAINS:
        _write_splits(folder, seed, domain, sizes, withheld)
    rng = Random(f"{seed} corpus")
    corpus = [document(rng, withheld) for _ in range(documents)]
    write_rows(folder / "corpus.jsonl", corpus)
    tokenizer = train_tokenizer(row["prompt"] + row["response"] for row in corpus)
    _write_folder(folder / "tokenizer", tokenizer)
    _write_folder(folder / "model", tokenizer, random_model(tokenizer, seed))


def _write_splits(folder: Path, seed: int, domain: str, sizes: dict[str, int], withheld: set[str]) -> None:
    """Write one domain's prompts; those of test and val are added to `withheld`."""
    for split in ("test", "val", "train"):
        drawn = prompt_rows(Random(f"{seed} {domain} {split}"), domain, withheld)
        rows = list(islice(drawn, sizes[split]))
        write_rows(folder / f"{domain}_{split}.jsonl", rows)
        if split != "train":
            withheld.update(row["prompt"] for row in rows)


def write_rows(path: Path, rows: Iterable[Record]) -> None:
    """Write a JSONL file whole.

    Args:
        path: The file.
        rows: Its rows.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    os.replace(temporary, path)


def random_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A small Qwen3 with random weights (0.37 million), float32.

    Args:
        tokenizer: Gives the vocabulary and the special ids.
        seed: Seed of the weights.
    """
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        dtype=torch.float32,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(**special)
    return model


def _write_folder(folder: Path, tokenizer: PreTrainedTokenizerFast, model: Qwen3ForCausalLM | None = None) -> None:
    """Save beside the folder, then put it in its place."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    tokenizer.save_pretrained(temporary)
    if model is not None:
        model.save_pretrained(temporary)
    os.chmod(temporary, 0o755)
    for file in temporary.iterdir():  # safetensors writes for its owner only
        os.chmod(file, 0o644)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line.

    Args:
        arguments: By default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m gopd_lightning.nano.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything drawn (default: 0)")
    options = parser.parse_args(arguments)
    build(options.out, options.seed)


if __name__ == "__main__":
    main()
