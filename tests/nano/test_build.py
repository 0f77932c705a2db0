"""The built folder: same seed, same bytes; splits apart by text; a tokenizer and a model that load."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from gopd_lightning.nano.build import build

DOCUMENTS = 3000
SPLITS = {"test": 60, "val": 30, "train": 80}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("nano")
    build(made, seed=3, documents=DOCUMENTS, splits=SPLITS)
    return made


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def prompts(folder, name):
    return [row["prompt"] for row in rows(folder, name)]


def digests(folder):
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_same_seed_gives_the_same_bytes_in_another_process(folder, tmp_path):
    code = (
        "import pathlib, sys; from gopd_lightning.nano.build import build\n"
        f"build(pathlib.Path(sys.argv[1]), seed=3, documents={DOCUMENTS}, splits={SPLITS})"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, capture_output=True)
    assert digests(tmp_path) == digests(folder)
    assert len(digests(folder)) == 14


def test_another_seed_gives_other_prompts(folder, tmp_path):
    build(tmp_path, seed=4, documents=300, splits=SPLITS)
    assert prompts(tmp_path, "math_test") != prompts(folder, "math_test")


@pytest.mark.parametrize("domain", ["math", "code"])
def test_held_out_prompts_occur_nowhere_else(folder, domain):
    corpus = set(prompts(folder, "corpus"))
    splits = {split: prompts(folder, f"{domain}_{split}") for split in SPLITS}
    assert {split: len(set(texts)) for split, texts in splits.items()} == SPLITS
    for split in ("val", "test"):
        assert not set(splits[split]) & (corpus | set(splits["train"]))
    assert not set(splits["val"]) & set(splits["test"])


def test_rows_have_exactly_their_fields(folder):
    assert {tuple(row) for row in rows(folder, "corpus")} == {("prompt", "domain", "response")}
    for domain in ("math", "code"):
        found = rows(folder, f"{domain}_train")
        assert {(tuple(row), row["domain"]) for row in found} == {(("prompt", "domain", "answer"), domain)}


def test_corpus_is_mostly_math(folder):
    found = rows(folder, "corpus")
    assert len(found) == DOCUMENTS
    assert 0.55 < sum(row["domain"] == "math" for row in found) / DOCUMENTS < 0.65


@pytest.mark.parametrize("where", ["tokenizer", "model"])
def test_tokenizer_round_trip_is_exact(folder, where):
    tokenizer = AutoTokenizer.from_pretrained(folder / where)
    texts = [text for row in rows(folder, "corpus") for text in (row["prompt"], row["response"])]
    texts += [text for domain in ("math", "code") for text in prompts(folder, f"{domain}_test")]
    decoded = tokenizer.batch_decode(tokenizer(texts)["input_ids"])
    assert decoded == texts


def test_prompt_and_response_are_tokenised_the_same_together_and_apart(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    for row in rows(folder, "corpus")[:500]:
        apart = tokenizer(row["prompt"])["input_ids"] + tokenizer(row["response"])["input_ids"]
        assert tokenizer(row["prompt"] + row["response"])["input_ids"] == apart


def test_digits_are_single_tokens_and_special_tokens_have_ids(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert tokenizer.tokenize("60=12") == ["6", "0", "=", "1", "2"]
    assert not [token for token in tokenizer.get_vocab() if len(token) > 1 and any(c.isdigit() for c in token)]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<eos>", "<pad>")
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert len(tokenizer) <= 320


def test_model_folder_loads_and_agrees_with_its_tokenizer(folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    config = model.config
    assert (config.model_type, config.vocab_size, config.head_dim) == ("qwen3", len(tokenizer), 32)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert 300_000 < model.num_parameters() < 400_000
