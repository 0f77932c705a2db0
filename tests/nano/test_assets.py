"""The assets that ship: small, whole, what their provenance says, and fair: held-out prompts are held out."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from gopd_lightning.data import PromptEncoder, SourceSpec, build_prompts, read_rows
from gopd_lightning.models.folders import load_tokenizer
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.rollouts import Sampling, TransformersEngine, Vocabulary, grade, sample_rows
from gopd_lightning.verifiers import MathVerifier, ProgramVerifier

ASSETS = Path(__file__).parents[2] / "assets" / "nano"
MODELS = ("base", "math-expert", "code-expert")
VERIFIERS = {"math": MathVerifier(), "code": ProgramVerifier()}


def texts(domain: str, split: str) -> list[str]:
    file = ASSETS / "data" / f"{domain}_{split}.jsonl"
    return [json.loads(line)["prompt"] for line in file.read_text().splitlines()]


def accuracy(name: str, domain: str, count: int = 256) -> float:
    """Greedy accuracy on the first validation prompts."""
    spec = ModelSpec(path=str(ASSETS / name))
    tokenizer = load_tokenizer(spec, name)
    rows = list(read_rows(SourceSpec(path=str(ASSETS / "data" / f"{domain}_val.jsonl"), limit=count)))
    prompts = build_prompts(rows, {"student": PromptEncoder(tokenizer, {}, name)}, domain, 0, False)
    vocabulary = Vocabulary(size=len(tokenizer), stop_ids=(tokenizer.eos_token_id,))
    engine = TransformersEngine()
    with FrozenBank({name: spec}, vocabulary.size, torch.device("cpu")).using(name) as model:
        engine.sync(model, 0)
        found = sample_rows(engine, prompts, Sampling(max_new_tokens=96).greedy(), (0, 0), tokenizer, vocabulary)
    grade(found, VERIFIERS)
    return sum(row.reward for row in found) / len(found)


def test_assets_are_small():
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) < 15e6


@pytest.mark.parametrize("name", MODELS)
def test_models_load_as_hugging_face_folders_of_a_shape_that_vllm_takes(name):
    config = AutoConfig.from_pretrained(ASSETS / name)
    assert config.architectures == ["Qwen3ForCausalLM"]
    assert config.head_dim in (32, 64, 128)
    assert AutoModelForCausalLM.from_pretrained(ASSETS / name).num_parameters() < 1e6


@pytest.mark.parametrize("domain", ["math", "code"])
def test_held_out_prompts_occur_in_no_training_prompts_and_only_once(domain):
    train, val, test = (texts(domain, split) for split in ("train", "val", "test"))
    assert len(set(test)) == len(test) >= 1000
    assert len(set(val)) == len(val)
    assert not set(test) & (set(train) | set(val))
    assert not set(val) & set(train)


@pytest.mark.parametrize("domain", ["math", "code"])
def test_every_ground_truth_can_be_graded(domain):
    for split in ("train", "val", "test"):
        rows = list(read_rows(SourceSpec(path=str(ASSETS / "data" / f"{domain}_{split}.jsonl"))))
        encoder = PromptEncoder(load_tokenizer(ModelSpec(path=str(ASSETS / "base")), "base"), {}, "base")
        for prompt in build_prompts(rows, {"student": encoder}, domain, 0, False):
            VERIFIERS[domain].check(prompt)


def test_provenance_shows_a_base_with_room_and_experts_that_moved_the_mode():
    content = json.loads((ASSETS / "provenance.json").read_text())
    assert {"commit", "date", "seed", "configs", "made_by"} <= set(content)
    measured = content["test_accuracy"]
    for domain in ("math", "code"):
        base, expert = measured["base"][domain], measured[f"teacher:{domain}"][domain]
        assert base["n"] >= 1000
        assert 0.30 <= base["avg@4"] <= 0.55
        assert base["greedy"] <= 0.60
        assert base["greedy"] + 0.15 <= expert["greedy"] <= 0.90


@pytest.mark.parametrize("domain", ["math", "code"])
def test_the_weights_do_what_the_provenance_says(domain):
    measured = json.loads((ASSETS / "provenance.json").read_text())["test_accuracy"]
    for name, key in (("base", "base"), (f"{domain}-expert", f"teacher:{domain}")):
        assert accuracy(name, domain) == pytest.approx(measured[key][domain]["greedy"], abs=0.1)
