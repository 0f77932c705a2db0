"""The extrapolated target as a policy: its distribution by hand, its ends, and adapters that share a trunk."""

import math

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from gopd_lightning.models import ModelSpec
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.rollouts import RolloutEngine, Sampling, TransformersEngine, Vocabulary
from gopd_lightning.rollouts.target_engine import TargetEngine

PROMPTS = [[5, 6, 7], [8, 9], [4, 5, 6, 7, 8]]
SAMPLING = Sampling(n=2, max_new_tokens=6)
SEEDS = range(6)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("target")
    return {name: tiny.model(place / name, seed=seed) for name, seed in (("teacher", 1), ("reference", 2))}


@pytest.fixture(scope="module")
def models(folders):
    return {name: AutoModelForCausalLM.from_pretrained(path).eval() for name, path in folders.items()}


@pytest.fixture
def vocabulary(models):
    return Vocabulary(size=models["teacher"].config.vocab_size - 3, stop_ids=(1,))


def bank(specs, vocabulary, temperature=1.0):
    return FrozenBank(
        {name: ModelSpec(path=str(path)) for name, path in specs.items()},
        vocabulary.size,
        torch.device("cpu"),
        temperature,
    )


def target(models, row, scale, size, temperature=1.0):
    """log Q after every prefix of one row, by the formula: lambda log T + (1 - lambda) log R, normalised."""
    with torch.no_grad():
        logs = {
            name: (lm(torch.tensor([row])).logits[0, :, :size] / temperature).log_softmax(-1)
            for name, lm in models.items()
        }
    return (scale * logs["teacher"] + (1 - scale) * logs["reference"]).log_softmax(-1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_target_by_hand(folders, models, vocabulary, scale, temperature):
    engine = TargetEngine(bank(folders, vocabulary, temperature), "teacher", "reference", scale)
    assert isinstance(engine, RolloutEngine)
    found = engine.generate(PROMPTS, SAMPLING, SEEDS, vocabulary)
    for i, completion in enumerate(found):
        prompt = PROMPTS[i // 2]
        expected = target(models, [*prompt, *completion.ids], scale, vocabulary.size, temperature)
        rows = expected[len(prompt) - 1 : -1].gather(-1, torch.tensor(completion.ids)[:, None]).squeeze(-1)
        torch.testing.assert_close(torch.tensor(completion.logprobs), rows, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("scale", "name"), [(1.0, "teacher"), (0.0, "reference")])
def test_at_its_ends_it_is_one_of_the_models_and_runs_no_other(folders, models, vocabulary, scale, name, monkeypatch):
    own = TransformersEngine()
    own.sync(models[name], 0)
    engine = TargetEngine(bank(folders, vocabulary), "teacher", "reference", scale)
    used, using = [], FrozenBank.using
    monkeypatch.setattr(FrozenBank, "using", lambda self, one: (used.append(one), using(self, one))[1])
    found = engine.generate(PROMPTS, SAMPLING, SEEDS, vocabulary)
    assert [c.ids for c in found] == [c.ids for c in own.generate(PROMPTS, SAMPLING, SEEDS, vocabulary)]
    assert set(used) == {name}


def test_samples_are_the_same_whatever_stands_beside_them(folders, vocabulary):
    engine = TargetEngine(bank(folders, vocabulary), "teacher", "reference", 1.5)
    small = TargetEngine(bank(folders, vocabulary), "teacher", "reference", 1.5, max_batch_tokens=1)
    assert [c.ids for c in engine.generate(PROMPTS, SAMPLING, SEEDS, vocabulary)] == [
        c.ids for c in small.generate(PROMPTS, SAMPLING, SEEDS, vocabulary)
    ]


def test_adapters_on_one_trunk_are_switched_at_every_token(folders, models, vocabulary, tmp_path):
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_pretrained(folders["reference"])
    adapted = get_peft_model(lm, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    specs = {"teacher": tmp_path / "adapter", "reference": folders["reference"]}
    shared = bank(specs, vocabulary)
    assert shared.loaded == 1
    engine = TargetEngine(shared, "teacher", "reference", 1.5)
    found = engine.generate(PROMPTS, SAMPLING, SEEDS, vocabulary)
    both = {"teacher": adapted.merge_and_unload().eval(), "reference": models["reference"]}
    for i, completion in enumerate(found):
        prompt = PROMPTS[i // 2]
        expected = target(both, [*prompt, *completion.ids], 1.5, vocabulary.size)
        rows = expected[len(prompt) - 1 : -1].gather(-1, torch.tensor(completion.ids)[:, None]).squeeze(-1)
        torch.testing.assert_close(torch.tensor(completion.logprobs), rows, atol=1e-4, rtol=1e-4)
        assert not math.isnan(float(rows.sum()))
