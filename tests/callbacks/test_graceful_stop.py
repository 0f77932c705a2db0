import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from gopd_callbacks.graceful_stop import GracefulStop
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_run import Loader, Tiny, trainer

EVERY = (("train_steps", 2), ("train_steps", 50), ("epochs", 1))
SCRIPT = Path(__file__).with_name("tiny_run.py")


def start(folder: Path, pause: float, ckpt: str = "") -> "subprocess.Popen[str]":
    command = [sys.executable, str(SCRIPT), str(folder), str(pause), ckpt]
    paths = os.pathsep.join(str(path) for path in sys.path if path)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})


def wait_for_row(folder: Path, step: int) -> None:
    path = folder / "metrics.csv"
    for _ in range(1200):
        if path.exists() and len(path.read_text().splitlines()) > step:
            return
        time.sleep(0.05)
    raise AssertionError(f"no row {step} in {path}")


class Signal(Callback):
    """Sends a signal to this process in the middle of a step, or of a validation."""

    def __init__(self, number: int, step: int, hook: str, times: int = 1) -> None:
        self.number, self.step, self.times = number, step, times
        setattr(self, hook, self.send)

    def send(self, run: Any, *_: Any) -> None:
        while run.global_step == self.step and self.times:
            self.times -= 1
            os.kill(os.getpid(), self.number)
            time.sleep(0.01)


def weights(folder: Path, *callbacks: Callback, ckpt: Path | None = None, **settings: Any) -> torch.Tensor:
    model = Tiny()
    trainer(folder, GracefulStop(), *callbacks, **settings).fit(model, Loader(10), Loader(3), ckpt_path=ckpt)
    return model.weight.data


def test_ctrl_c_then_ckpt_path_last_gives_the_uninterrupted_run(tmp_path: Path) -> None:
    whole, stopped = start(tmp_path / "whole", 0.0), start(tmp_path / "stopped", 0.3)
    wait_for_row(tmp_path / "stopped", 2)
    stopped.send_signal(signal.SIGINT)
    said, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 0
    assert "then saving; press Ctrl-C again to stop at once" in said
    assert "--ckpt_path last" in said
    assert "interrupted True" in said
    resumed = start(tmp_path / "stopped", 0.0, "last")
    assert "at 12" in resumed.communicate(timeout=60)[0]
    assert "at 12" in whole.communicate(timeout=60)[0]
    ours, theirs = tmp_path / "stopped", tmp_path / "whole"
    assert torch.equal(torch.load(ours / "weights.pt"), torch.load(theirs / "weights.pt"))
    assert (ours / "metrics.csv").read_text() == (theirs / "metrics.csv").read_text()


@pytest.mark.parametrize("step", [1, 3, 4, 9, 10])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_any_step_resumes_to_the_same_weights(tmp_path: Path, step: int, number: int) -> None:
    whole = weights(tmp_path / "whole")
    weights(tmp_path / "cut", Signal(number, step - 1, "on_train_batch_start"))
    saved = tmp_path / "cut/checkpoints/last.ckpt"
    assert torch.load(saved, weights_only=True)["global_step"] == step
    assert torch.equal(weights(tmp_path / "cut", ckpt=saved), whole)


class Validations(Callback):
    """Notes the steps at which a validation ended."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_end(self, run: Any, module: Any) -> None:
        self.steps.append(run.global_step)


@pytest.mark.parametrize("step", [3, 4, 5])
def test_a_stop_neither_adds_nor_skips_a_validation(tmp_path: Path, step: int) -> None:
    seen = Validations()
    weights(tmp_path, Signal(signal.SIGINT, step - 1, "on_train_batch_start"), seen)
    weights(tmp_path, seen, ckpt=tmp_path / "checkpoints/last.ckpt")
    assert seen.steps == [4, 8, 12]


def test_signal_during_validation_saves_after_it(tmp_path: Path) -> None:
    seen = Validations()
    weights(tmp_path, Signal(signal.SIGINT, 4, "on_validation_batch_start"), seen)
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert seen.steps == [4]


def test_minimum_steps_do_not_overrule_the_user(tmp_path: Path) -> None:
    weights(tmp_path, Signal(signal.SIGINT, 1, "on_train_batch_start"), min_steps=10)
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        weights(tmp_path, Signal(signal.SIGINT, 2, "on_train_batch_start", times=2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored
    assert not (tmp_path / "checkpoints").exists()


def test_signal_handlers_are_given_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    weights(tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_link_of_an_older_checkpoint_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/old.ckpt").write_text("old")
    (tmp_path / "checkpoints/last.ckpt").symlink_to("old.ckpt")
    weights(tmp_path, Signal(signal.SIGINT, 1, "on_train_batch_start"))
    assert (tmp_path / "checkpoints/old.ckpt").read_text() == "old"
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("every", [{f"every_n_{unit}": n} for unit, n in EVERY])
@pytest.mark.parametrize("save_last", [True, "link"])
def test_model_checkpoint_leaves_our_file_the_last_one(tmp_path: Path, every: Any, save_last: Any) -> None:
    saver = ModelCheckpoint(save_last=save_last, dirpath=tmp_path / "checkpoints", **every)
    stop = Signal(signal.SIGINT, 6, "on_train_batch_start")
    weights(tmp_path, stop, saver, enable_checkpointing=True)
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert (last["global_step"], last["epoch"]) == (7, 0)
    assert list((tmp_path / "checkpoints").glob("last*")) == [tmp_path / "checkpoints/last.ckpt"]


class Interrupted(Callback):
    """Notes what an end-of-run callback sees."""

    def on_fit_end(self, run: Any, module: Any) -> None:
        self.seen = run.interrupted


def test_end_of_run_callbacks_can_tell_a_stopped_run(tmp_path: Path) -> None:
    stopped, whole = Interrupted(), Interrupted()
    weights(tmp_path, Signal(signal.SIGINT, 1, "on_train_batch_start"), stopped)
    weights(tmp_path / "whole", whole)
    assert (stopped.seen, whole.seen) == (True, False)
