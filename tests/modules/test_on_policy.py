"""The real step on real tiny models: what must not change the gradient, and who sees which rows."""

import pytest
import tiny
import tiny_fit
import torch
from lightning.pytorch import Callback
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from gopd_lightning.models import ModelSpec, StudentSpec, TeacherSpec
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.records import Completion, Row

VARIANTS = [(e, a) for e in ("sampled", "full") for a in ("token_mean", "sequence_mean")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("merge")
    tiny_fit.prepare(found)
    return found


class GivenRows(Callback):
    """Fills batches with made-up rows instead of sampling, in an order of its choosing."""

    def __init__(self, reverse: bool = False) -> None:
        self.reverse = reverse

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        rows = []
        for prompt in batch.prompts:
            g = torch.Generator().manual_seed(sum(map(ord, prompt.text)))
            length = int(torch.randint(1, 12, (), generator=g))
            ids = torch.randint(2, 30, (length,), generator=g).tolist()
            rows.append(Row(prompt=prompt, completion=Completion(ids=ids, finished=length % 2 == 0)))
        batch.rows = rows[::-1] if self.reverse else rows


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def gradient(folder, **model) -> torch.Tensor:
    reverse = model.pop("reverse", False)
    module = tiny_fit.build(folder, max_grad_norm=None, **model)
    return tiny_fit.fit(folder, module, rollout=GivenRows(reverse), max_steps=1)["gradients"][0]


@pytest.mark.parametrize(("estimator", "aggregation"), VARIANTS)
def test_gradient_does_not_depend_on_the_token_budget_or_the_row_order(folder, estimator, aggregation):
    settings = {"estimator": estimator, "loss_aggregation": aggregation}
    whole = gradient(folder, max_micro_batch_tokens=10**6, **settings)
    assert float(whole.norm()) > 0
    for budget in (1, 40, 100):
        assert relative(gradient(folder, max_micro_batch_tokens=budget, **settings), whole) < 1e-6
    assert torch.equal(gradient(folder, max_micro_batch_tokens=10**6, reverse=True, **settings), whole)


@pytest.mark.parametrize("estimator", ["sampled", "full"])
def test_mixed_batch_has_bit_for_bit_the_advantages_of_the_separate_ones(folder, estimator):
    def advantages(*domains):
        module = tiny_fit.build(folder, estimator=estimator, domains=domains)
        prompts = tiny_fit.data(folder, domains, prompts_per_step=24 * len(domains))
        prompts.prompts_per_step = 24 * len(domains)
        out = tiny_fit.fit(folder, module, rollout=GivenRows(), prompts=prompts, max_steps=1)
        by_text = {}
        for (_, uid), scores in out["scores"].items():
            text = next(p.text for p in prompts.prompts["train"] if p.uid == uid)
            by_text[text] = scores["advantage"]
        return by_text

    mixed = advantages("math", "code")
    alone = advantages("math") | advantages("code")
    assert mixed.keys() == alone.keys()
    assert len(mixed) == 48
    for text, value in mixed.items():
        assert torch.equal(value, alone[text]), text


@pytest.mark.parametrize("estimator", ["sampled", "full"])
def test_lambda_one_loads_and_runs_no_reference(folder, estimator):
    out = tiny_fit.fit(folder, tiny_fit.build(folder, estimator=estimator, reward_scale=1.0))
    bank = out["module"].frozen
    assert "reference" not in bank
    assert bank.loaded == 2
    assert set(bank.forwards) == {"teacher:math", "teacher:code"}
    assert not any(name.startswith("kl_reference") for name in out["figures"][0])


def test_each_teacher_sees_only_its_rows(folder, monkeypatch):
    seen = {}
    plain = FrozenBank.score

    def spy(self, name, prompts, responses):
        seen.setdefault(name, []).extend(map(tuple, prompts))
        return plain(self, name, prompts, responses)

    monkeypatch.setattr(FrozenBank, "score", spy)
    out = tiny_fit.fit(folder, tiny_fit.build(folder), max_steps=3)
    prompts = {tuple(p.ids): p.domain for p in out["trainer"].datamodule.prompts["train"]}
    for domain in ("math", "code"):
        assert {prompts[ids] for ids in seen[f"teacher:{domain}"]} == {domain}
    assert {prompts[ids] for ids in seen["reference"]} == {"math", "code"}
    assert len(seen["reference"]) == 3 * 8


def test_a_teacher_may_have_its_own_reference_and_lambda(folder):
    own = TeacherSpec(
        domain="math",
        path=str(folder / "math"),
        reference=ModelSpec(path=str(folder / "code")),
        reward_scale=2.0,
    )
    plain = TeacherSpec(domain="code", path=str(folder / "code"), reward_scale=1.0)
    module = tiny_fit.build(folder, teachers=[own, plain], reference=None)
    out = tiny_fit.fit(folder, module, max_steps=1)
    assert set(module.frozen.forwards) == {"teacher:math", "reference:math", "teacher:code"}
    assert module.frozen.loaded == 2  # the code model is teacher and reference
    for scores in out["scores"].values():
        s, t = scores["student"], scores["teacher"]
        if "reference" in scores:
            r = scores["reference"]
            torch.testing.assert_close(scores["advantage"], 2.0 * (t - r) - (s - r))
        else:
            torch.testing.assert_close(scores["advantage"], t - s)


@pytest.mark.parametrize(("estimator", "aggregation"), VARIANTS)
def test_the_loss_can_be_recomputed_by_hand_from_the_rows(folder, estimator, aggregation):
    module = tiny_fit.build(folder, estimator=estimator, loss_aggregation=aggregation)
    out = tiny_fit.fit(folder, module, max_steps=1)
    total = 0.0
    for s in out["scores"].values():
        loss = s["loss"]
        if estimator == "sampled":
            torch.testing.assert_close(loss, -s["advantage"] * s["student"])
        total += float((s["weight"].double() * loss.double()).sum())
    assert total == pytest.approx(out["figures"][0]["train/loss"], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("estimator", ["sampled", "full"])
def test_student_equal_to_its_teacher_does_not_move(folder, estimator):
    same = [TeacherSpec(domain=d, path=str(folder / "base")) for d in ("math", "code")]
    module = tiny_fit.build(folder, teachers=same, reward_scale=1.0, estimator=estimator)
    out = tiny_fit.fit(folder, module, max_steps=1)
    assert abs(out["figures"][0]["train/loss"]) < 1e-6
    assert float(out["gradients"][0].abs().max()) < 1e-5


def test_training_brings_the_student_to_its_teachers(folder):
    module = tiny_fit.build(folder, reward_scale=1.0, estimator="full")
    figures = tiny_fit.fit(folder, module, max_steps=40)["figures"]
    assert figures[-1]["train/loss"] < 0.5 * figures[0]["train/loss"]


def test_teachers_are_not_in_the_state_that_is_checkpointed(folder):
    module = tiny_fit.build(folder)
    out = tiny_fit.fit(folder, module, max_steps=1)
    assert all(name.startswith("student.") for name in module.state_dict())
    assert len(module.state_dict()) == len(out["weights"])


def test_engine_and_trainer_agree_on_the_logprobs(folder):
    figures = tiny_fit.fit(folder, tiny_fit.build(folder), max_steps=2)["figures"]
    assert 0 <= figures[1]["engine_gap/math"] < 1e-5


@pytest.mark.parametrize("estimator", ["sampled", "full"])
def test_padded_vocabularies_give_the_gradient_of_the_real_tokens(folder, tmp_path, estimator):
    """The teacher's head has 24 padding rows more than the student's, as 152,064 against 151,936."""
    plain = AutoModelForCausalLM.from_pretrained(folder / "math")
    padded = AutoModelForCausalLM.from_pretrained(tiny.model(tmp_path / "padded", seed=5, padding=24))
    state = plain.state_dict()
    with torch.no_grad():
        for name, value in padded.state_dict().items():
            value[: state[name].shape[0]] = state[name]
    padded.save_pretrained(tmp_path / "padded")
    wide = [
        TeacherSpec(domain="math", path=str(tmp_path / "padded")),
        TeacherSpec(domain="code", path=str(folder / "code")),
    ]
    assert torch.equal(gradient(folder, estimator=estimator, teachers=wide), gradient(folder, estimator=estimator))


def test_adapters_as_teachers_and_student_share_one_base(folder, tmp_path):
    teachers = []
    for domain in ("math", "code"):
        base = AutoModelForCausalLM.from_pretrained(folder / "base")
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        get_peft_model(base, config).save_pretrained(tmp_path / domain)
        teachers.append(TeacherSpec(domain=domain, path=str(tmp_path / domain)))
    student = StudentSpec(path=str(folder / "base"), lora={"r": 4, "target_modules": "all-linear"})
    module = tiny_fit.build(folder, student=student, teachers=teachers, estimator="full", reward_scale=1.5)
    out = tiny_fit.fit(folder, module, max_steps=25)
    assert module.frozen.loaded == 1  # both experts and the reference live on one base
    assert out["figures"][-1]["train/loss"] < out["figures"][0]["train/loss"]
    before = AutoModelForCausalLM.from_pretrained(folder / "base").state_dict()
    untouched = [name for name in out["weights"] if name.endswith("base_layer.weight")]
    assert untouched
    for name in untouched:
        original = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert torch.equal(out["weights"][name], before[original])
