"""Sampling a step ahead: how old the weights are, that nothing else changes, and that a resumed run is exact."""

import copy
from types import SimpleNamespace

import pytest
import tiny_fit
import torch
from gopd_callbacks.ahead import Ahead
from gopd_callbacks.rollout import Rollout
from lightning.pytorch import Callback

from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.records import Completion, Prompt, Row
from gopd_lightning.rollouts import Sampling, TransformersEngine

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("ahead")
    tiny_fit.prepare(found)
    return found


class Beside(TransformersEngine):
    """Samples from a copy of its own, as a server does."""

    concurrent = True

    def sync(self, student, version):
        super().sync(copy.deepcopy(student), version)


class Late(Beside):
    """Samples in turns, and from the weights of one step before."""

    concurrent = False

    def __init__(self):
        super().__init__()
        self.before = None

    def sync(self, student, version):
        present = copy.deepcopy(student), version
        super().sync(*(self.before or present))
        self.before = present


class Versions(Callback):
    """Notes how old the weights of every step's rows are; stops the run before a step."""

    def __init__(self, stop_at=None):
        self.ages = []
        self.stop_at = stop_at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.ages.append({trainer.global_step - 1 - row.completion.version for row in batch.rows})
        if trainer.global_step == self.stop_at:
            raise RuntimeError("killed")


def run(folder, engine, max_staleness=0, versions=None, **settings):
    rollout = Rollout(engine=engine, sampling=Sampling(n=2, max_new_tokens=10), max_staleness=max_staleness)
    versions = versions or Versions()
    module = tiny_fit.build(folder, sgd=0.05)
    return versions, tiny_fit.fit(
        folder, module, rollout=rollout, callbacks=(versions,), **{"max_steps": STEPS, **settings}
    )


def equal(a, b):
    return all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])


@pytest.fixture(scope="module")
def ahead(folder):
    return run(folder, Beside(), max_staleness=1)


def test_every_step_but_the_first_trains_on_weights_one_step_old(ahead):
    assert ahead[0].ages == [{0}] + [{1}] * (STEPS - 1)


def test_the_samples_are_those_of_an_engine_that_is_a_step_late(folder, ahead):
    _, late = run(folder, Late())
    assert [figures["train/loss"] for figures in ahead[1]["figures"]] == [f["train/loss"] for f in late["figures"]]
    assert equal(ahead[1], late)


def test_the_loss_differs_from_that_of_the_newest_weights(folder, ahead):
    _, newest = run(folder, Beside())
    assert newest["figures"][0]["train/loss"] == ahead[1]["figures"][0]["train/loss"]
    assert newest["figures"][-1]["train/loss"] != ahead[1]["figures"][-1]["train/loss"]


def test_validation_between_changes_nothing(folder, ahead):
    _, validated = run(folder, Beside(), 1, limit_val_batches=1, val_check_interval=1, check_val_every_n_epoch=None)
    assert equal(validated, ahead[1])


def test_a_resumed_run_trains_on_what_the_former_weights_sampled(folder, ahead):
    settings = {"run": "killed", "enable_checkpointing": True, "checkpoint_every": 2}
    with pytest.raises(RuntimeError, match="killed"):
        run(folder, Beside(), 1, Versions(stop_at=5), **settings)
    versions, resumed = run(folder, Beside(), 1, resume=True, **settings)
    assert versions.ages == [{1}, {1}]
    assert equal(resumed, ahead[1])


def test_an_engine_in_the_trainers_process_is_refused(folder):
    with pytest.raises(InputError, match="samples in the trainer's own process: use VLLMServerEngine"):
        run(folder, TransformersEngine(), 1)


def test_staleness_of_more_than_a_step_is_refused():
    with pytest.raises(InputError, match="max_staleness is 2: 0 or 1"):
        Rollout(max_staleness=2)


def prompt(uid):
    return Prompt(uid=uid, domain="math", dataset="math", text="", ids=[1])


def trainer(first, last, prompts):
    loader = SimpleNamespace(share=slice(first, last), step=1, prompts_at=lambda step: prompts)
    return SimpleNamespace(global_step=0, max_steps=9, train_dataloader=loader)


def sampled(prompts, step):
    return [
        Row(prompt=p, completion=Completion(ids=[p.uid, k], finished=True, logprobs=[-1.0, -2.0], version=3), sample=k)
        for p in prompts
        for k in range(2)
    ]


def test_every_rank_finds_its_own_part_in_the_checkpoint_whatever_their_number():
    prompts = [prompt(uid) for uid in (7, 5, 5, 8)]
    alone = Ahead(samples=2)
    alone.start(trainer(0, 4, prompts), sampled)
    state = alone.state()
    for rank in (0, 1):
        half = Ahead(samples=2)
        half.restore(state)
        own = prompts[2 * rank : 2 * rank + 2]
        rows = half.take(trainer(2 * rank, 2 * rank + 2, prompts), own, str)
        assert [fields(row) for row in rows] == [fields(row) for row in sampled(own, 1)]


def fields(row):
    return row.prompt, row.completion, row.sample


def test_a_checkpoint_of_other_prompts_is_refused():
    ahead = Ahead(samples=1)
    ahead.restore([[3, [1], True, None, 0]])
    with pytest.raises(TrainingError, match="of other prompts"):
        ahead.take(trainer(0, 1, []), [prompt(4)], str)
