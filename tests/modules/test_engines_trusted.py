"""How far the step trusts what sampled: importance weights for foreign engines, and a stop where the policies part."""

import pytest
import tiny_fit
import torch
from gopd_callbacks.rollout import Rollout
from transformers import AutoModelForCausalLM

from gopd_lightning import GRPO
from gopd_lightning.errors import TrainingError
from gopd_lightning.models import StudentSpec
from gopd_lightning.rollouts import Sampling, TransformersEngine
from gopd_lightning.verifiers import ExactMatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("merge")
    tiny_fit.prepare(found)
    return found


class Foreign:
    """Somebody's own engine, which samples as well as the trainer's does."""

    def __init__(self) -> None:
        self.inner = TransformersEngine()

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Stale(Foreign):
    """Hands over no weights after the first."""

    def sync(self, student, version):
        if version == 0:
            copy = AutoModelForCausalLM.from_config(student.config)
            copy.load_state_dict(student.state_dict())
            self.inner.sync(copy, 0)
            self.copy = copy


def fit(folder, engine, module=None, steps=1, **model):
    rollout = Rollout(
        engine=engine,
        sampling=Sampling(n=2, max_new_tokens=10),
        verifiers={"math": ExactMatch(), "code": ExactMatch()},
    )
    module = module or tiny_fit.build(folder, **model)
    return module, tiny_fit.fit(folder, module, rollout=rollout, max_steps=steps)


def test_the_trainers_own_engine_is_trusted_by_default(folder):
    assert fit(folder, TransformersEngine())[0].objective.importance_weight_cap is None


@pytest.mark.parametrize("engine", [Foreign, lambda: TransformersEngine(dtype="bfloat16")])
def test_tokens_of_all_other_engines_are_weighed_by_default(folder, engine):
    module, found = fit(folder, engine())
    assert module.objective.importance_weight_cap == 5
    weights = torch.cat([scores["importance_weight"] for scores in found["scores"].values()])
    assert (weights != 1).any()
    assert (weights - 1).abs().max() < 0.2


@pytest.mark.parametrize("cap", [None, 2.0])
def test_a_cap_that_is_given_stands_whatever_samples(folder, cap):
    assert fit(folder, Foreign(), importance_weight_cap=cap)[0].objective.importance_weight_cap == cap


def test_grpo_weighs_them_as_well(folder):
    student = StudentSpec(path=str(folder / "base"))
    module, _ = fit(folder, Foreign(), GRPO(student=student))
    assert module.objective.importance_weight_cap == 5


def test_the_exact_estimator_has_no_weights_to_cap(folder):
    module, found = fit(folder, Foreign(), estimator="full")
    assert "importance_weight" not in next(iter(found["scores"].values()))


def test_weights_that_are_not_handed_over_stop_the_run_before_the_update_they_would_spoil(folder):
    module = tiny_fit.build(folder, optimizer=lambda params: torch.optim.AdamW(params, lr=0.3))
    with pytest.raises(
        TrainingError, match=r"step 2: the rollout engine's log-probs .* does not sample from the student"
    ):
        fit(folder, Stale(), module, steps=3)
    assert module.global_step == 1


def test_a_gap_may_be_as_large_as_the_run_allows(folder):
    optimizer = lambda params: torch.optim.AdamW(params, lr=0.3)  # noqa: E731
    _, found = fit(folder, Stale(), steps=2, optimizer=optimizer, max_engine_gap=None)
    assert found["figures"][1]["engine_gap/math"] > 0.5
