"""Models that two ranks load into shards are what transformers loads, and compute the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from shard_ranks import IDS, STREAMED, WHOLE
from test_scoring import PROMPTS, RESPONSES, score
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
LOADED = (*STREAMED, *WHOLE)


def folders(folder: Path) -> None:
    """One model in every form that its files may have."""
    tiny.model(folder / "one_file", seed=3)
    _replace(folder / "one_file", '"attention_dropout": 0.0', '"attention_dropout": 0.5')
    model = AutoModelForCausalLM.from_pretrained(folder / "one_file")
    for name in LOADED[1:]:
        (folder / name).mkdir()
        model.config.save_pretrained(folder / name)
        model.generation_config.save_pretrained(folder / name)
    AutoModelForCausalLM.from_pretrained(folder / "one_file", dtype=torch.bfloat16).save_pretrained(
        folder / "many_bfloat16_files", max_shard_size="20KB"
    )
    weights = load_file(folder / "one_file" / "model.safetensors")
    head = weights["model.embed_tokens.weight"]
    save_file(weights | {"lm_head.weight": head.clone()}, folder / "head_twice" / "model.safetensors", {"format": "pt"})
    save_file(weights | {"lm_head.weight": head + 1}, folder / "untied" / "model.safetensors", {"format": "pt"})
    save_file(weights | {"lm_head.weight": head + 1}, folder / "head_differs" / "model.safetensors", {"format": "pt"})
    bare = {key.removeprefix("model."): weight for key, weight in weights.items()}
    save_file(bare, folder / "other_names" / "model.safetensors", {"format": "pt"})
    _replace(folder / "untied", '"tie_word_embeddings": true', '"tie_word_embeddings": false')
    torch.save(weights, folder / "pickled" / "pytorch_model.bin")


def _replace(folder: Path, old: str, new: str) -> None:
    config = folder / "config.json"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("shards")
    folders(found)
    return found


@pytest.fixture(scope="module")
def ranks(folder):
    """What each of two ranks saw."""
    places = [str(HERE), str(HERE.parent), *sys.path]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(HERE / "shard_ranks.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(params=LOADED)
def name(request):
    return request.param


def plain(folder, name):
    return AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)


def test_logits_are_those_of_a_model_that_transformers_loads(folder, ranks, name):
    expected = plain(folder, name)(IDS).logits
    assert all(torch.equal(rank["students"][name]["logits"], expected) for rank in ranks)


def test_gradients_are_those_of_the_whole_model_tied_head_included(folder, ranks, name):
    model = plain(folder, name)
    model(IDS).logits.square().mean().backward()
    expected = {n: p.grad for n, p in model.named_parameters()}
    for rank in ranks:
        found = rank["students"][name]
        assert found["gradients"].keys() == expected.keys()
        assert found["one_head"] == (name not in ("untied", "head_differs"))
        for n, gradient in expected.items():
            torch.testing.assert_close(found["gradients"][n], gradient, rtol=1e-5, atol=1e-7)


def test_a_rank_holds_half(ranks, name):
    assert all(rank["students"][name]["held"] == pytest.approx(0.5, abs=0.02) for rank in ranks)


def test_a_sharded_student_is_prepared_like_any_other(ranks, name):
    for found in (rank["students"][name] for rank in ranks):
        assert (found["dropout"], found["tokens_at_the_end"]) == (0, 1)
        assert found["recomputes"] == (name == "pickled")


def test_compiled_blocks_compute_the_same(ranks):
    compiled, eager = (ranks[0]["students"][name] for name in ("compiled", "one_file"))
    torch.testing.assert_close(compiled["logits"], eager["logits"], rtol=1e-4, atol=1e-5)
    for name, gradient in eager["gradients"].items():
        torch.testing.assert_close(compiled["gradients"][name], gradient, rtol=1e-3, atol=1e-6)


def test_sharded_frozen_models_score_as_whole_ones_with_more_rows_on_one_rank(folder, ranks):
    for rank, found in enumerate(ranks):
        own = slice(0, 1 + 2 * rank)
        for name in ("one_file", "untied"):
            expected = score(plain(folder, name), PROMPTS[own], RESPONSES[own])
            torch.testing.assert_close(found["frozen"][name], expected, rtol=1e-5, atol=1e-5)


def test_a_sharded_frozen_model_lies_in_shards_again_after_scoring(ranks):
    assert all(rank["frozen"]["held"] == pytest.approx(0.5, abs=0.02) for rank in ranks)
