"""Runs of a real Trainer: what an interrupted and resumed run sees is what an uninterrupted one sees."""

import logging

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from gopd_lightning.data import PromptData, PromptEncoder, SourceSpec

ROWS = 14  # 2 sources, 7 prompts a step: epochs of 4 steps with uneven shares; 10 steps end in the third


class Recorder(LightningModule):
    domains = None

    def __init__(self, tokenizer):
        super().__init__()
        self.automatic_optimization = False
        self.layer_weight = torch.nn.Parameter(torch.zeros(1))
        self.encoders = {"student": PromptEncoder(tokenizer, None, "student")}
        self.seen, self.validated = {}, []

    def training_step(self, batch, batch_idx):
        self.seen[self.global_step] = [prompt.uid for prompt in batch.prompts]
        self.manual_backward(self.layer_weight.sum())
        self.optimizers().step()

    def validation_step(self, batch, batch_idx):
        self.validated += [prompt.uid for prompt in batch.prompts]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stop(Callback):
    """Dies in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise ConnectionResetError


@pytest.fixture
def run(tmp_path, tokenizer, write):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    path = write("train.jsonl", *({"prompt": "one two", "domain": "math"} for _ in range(ROWS)))

    def fit(folder, every=3, stop=None, ckpt_path=None, val=False, **settings):
        module = Recorder(tokenizer)
        train = [SourceSpec(path=path, weight=2.0), SourceSpec(path=path, name="again")]
        data = PromptData(train, train[:1] if val else [], prompts_per_step=7)
        keep = ModelCheckpoint(tmp_path / folder, every_n_train_steps=every, save_top_k=-1, filename="{step}")
        callbacks = [keep] + ([Stop(stop)] if stop is not None else [])
        trainer = Trainer(
            **{"max_steps": 10, "max_epochs": -1, "num_sanity_val_steps": 0} | settings,
            callbacks=callbacks,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if stop is None:
            trainer.fit(module, data, ckpt_path=ckpt_path)
        else:
            with pytest.raises(ConnectionResetError):
                trainer.fit(module, data, ckpt_path=ckpt_path)
        return module, data

    return fit


def checkpoint(tmp_path, folder, step):
    return tmp_path / folder / f"step={step}.ckpt"


def test_ten_steps_are_the_loaders_first_ten(run):
    module, data = run("whole")
    loader = data.train_dataloader()
    expected = {step: [prompt.uid for prompt in loader.prompts_at(step)] for step in range(10)}
    assert module.seen == expected
    assert len(loader) == 4


@pytest.mark.parametrize(("saved", "stop"), [(3, 3), (3, 5), (6, 8), (9, 9)])
def test_killed_and_resumed_run_sees_the_same_prompts(run, tmp_path, saved, stop):
    whole, _ = run("whole")
    killed, _ = run("killed", stop=stop)
    resumed, _ = run("resumed", ckpt_path=checkpoint(tmp_path, "killed", saved))
    assert max(killed.seen) == stop - 1
    assert min(resumed.seen) == saved
    assert {k: v for k, v in killed.seen.items() if k < saved} | resumed.seen == whole.seen


@pytest.mark.parametrize("val", [False, True], ids=["fit", "fit with validation"])
@pytest.mark.parametrize("saved", [4, 8])
def test_resumed_at_the_border_of_an_epoch(run, tmp_path, saved, val):
    whole, _ = run("whole", every=4, val=val)
    killed, _ = run("killed", every=4, stop=saved, val=val)
    resumed, _ = run("resumed", ckpt_path=checkpoint(tmp_path, "killed", saved), val=val)
    assert min(resumed.seen) == saved
    assert killed.seen | resumed.seen == whole.seen


def test_resumed_twice(run, tmp_path):
    whole, _ = run("whole")
    first, _ = run("first", stop=5)
    second, _ = run("second", stop=8, ckpt_path=checkpoint(tmp_path, "first", 3))
    third, _ = run("third", ckpt_path=checkpoint(tmp_path, "second", 6))
    assert first.seen | second.seen | third.seen == whole.seen


@pytest.mark.parametrize("saved", [2, 3, 6])
def test_resumed_with_short_epochs(run, tmp_path, saved):
    whole, _ = run("whole", limit_train_batches=3, every=1)
    resumed, _ = run("resumed", limit_train_batches=3, ckpt_path=checkpoint(tmp_path, "whole", saved))
    assert sorted(whole.seen) == list(range(10))
    assert resumed.seen == {step: uids for step, uids in whole.seen.items() if step >= saved}


def test_finished_run_is_extended(run, tmp_path):
    whole, _ = run("whole")
    run("short", max_steps=6)
    longer, _ = run("longer", ckpt_path=checkpoint(tmp_path, "short", 6))
    assert longer.seen == {step: uids for step, uids in whole.seen.items() if step >= 6}


def test_validation_sees_every_prompt_each_time(run):
    module, _ = run("whole", val=True, max_steps=8)
    first = module.validated[0]
    assert module.validated == list(range(first, first + ROWS)) * 2


def test_checkpoint_holds_the_step_as_a_plain_int(run, tmp_path):
    run("whole")
    loops = torch.load(checkpoint(tmp_path, "whole", 6), weights_only=True)["loops"]
    assert loops["fit_loop"]["state_dict"]["combined_loader"] == [{"step": 6}]
