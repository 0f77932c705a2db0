"""Requeue in this process: a `scontrol` of our own writes down what it was asked; a real SLURM is in tests/slurm."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from gopd_callbacks import GracefulStop, Requeue
from lightning.pytorch import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment
from test_graceful_stop import Signal
from tiny_run import Loader, Tiny, trainer


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job's environment; the file that `scontrol` writes its arguments and the run folder's state into."""
    program, asked = tmp_path / "bin/scontrol", tmp_path / "asked"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return asked


@pytest.fixture(autouse=True)
def sigterm_is_given_back() -> Any:
    """A requeued process ignores SIGTERM, and this one goes on."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def weights(folder: Path, *callbacks: Callback, ckpt: Path | None = None, **settings: Any) -> torch.Tensor:
    model = Tiny()
    trainer(folder, *callbacks, **settings).fit(model, Loader(10), Loader(3), ckpt_path=ckpt)
    return model.weight.data


def warn(step: int, hook: str = "on_train_batch_start", number: int = signal.SIGUSR1) -> Signal:
    return Signal(number, step - 1, hook)


def saved_step(folder: Path) -> int:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize("step", [3, 4])  # a validation is due at 4
def test_a_warned_run_saves_requeues_its_job_once_and_resumes_to_the_same_weights(tmp_path, scontrol, step):
    whole = weights(tmp_path / "whole")
    requeue = Requeue()
    weights(tmp_path, GracefulStop(), warn(step), requeue)
    assert saved_step(tmp_path) == step
    assert scontrol.read_text() == "requeue 7\n"
    resumed = weights(tmp_path, GracefulStop(), requeue, ckpt=tmp_path / "checkpoints/last.ckpt")
    assert torch.equal(resumed, whole)
    assert scontrol.read_text() == "requeue 7\n"


class Job(SLURMEnvironment):
    """The environment that Lightning finds in a job, with its own requeue on."""

    def __init__(self) -> None:
        super().__init__(auto_requeue=True)


def test_lightnings_own_requeue_stays_out_of_it(tmp_path, scontrol, monkeypatch):
    for name, value in {"NTASKS": 1, "NTASKS_PER_NODE": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    weights(tmp_path, warn(1, "on_train_start"), Requeue(), plugins=[Job()])
    assert saved_step(tmp_path) == 1
    assert scontrol.read_text() == "requeue 7\n"
    assert not list(tmp_path.glob("hpc_ckpt*"))


def test_a_warning_before_the_first_step_counts_at_its_end(tmp_path, scontrol):
    weights(tmp_path, Requeue(), warn(1, "on_fit_start"))
    assert saved_step(tmp_path) == 1
    assert scontrol.read_text() == "requeue 7\n"


def test_the_signal_is_a_setting(tmp_path, scontrol):
    weights(tmp_path, Requeue(signal.SIGUSR2), warn(2, number=signal.SIGUSR2))
    assert saved_step(tmp_path) == 2


def test_a_failure_after_the_checkpoint_still_requeues(tmp_path, scontrol):
    class Broken(Callback):
        def on_train_end(self, run: Any, module: Any) -> None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        weights(tmp_path, Broken(), Requeue(), warn(2))
    assert scontrol.read_text() == "requeue 7\n"


def test_a_run_that_ends_by_itself_or_by_sigterm_is_not_requeued(tmp_path, scontrol):
    before = signal.getsignal(signal.SIGUSR1)
    weights(tmp_path, Requeue(), warn(12, "on_train_end"), max_steps=11)
    weights(tmp_path, GracefulStop(), Requeue(), warn(3, number=signal.SIGTERM))
    assert not scontrol.exists()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_outside_slurm_it_saves_and_stops(tmp_path, scontrol, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    weights(tmp_path, Requeue(), warn(3))
    assert saved_step(tmp_path) == 3
    assert not scontrol.exists()


def test_a_refused_requeue_says_why(tmp_path, scontrol, capsys):
    (tmp_path / "bin/scontrol").write_text("#!/bin/sh\necho 'Requested operation is disabled' >&2; exit 1\n")
    weights(tmp_path, Requeue(), warn(3))
    assert "job 7 could not be requeued (Requested operation is disabled): submit it again" in capsys.readouterr().err


def test_told_to_stop_and_warned_at_one_step_it_stops(tmp_path, scontrol):
    callbacks = (GracefulStop(), Requeue(), warn(3, number=signal.SIGTERM), warn(3))
    run = trainer(tmp_path, *callbacks, limit_val_batches=2)
    run.fit(Tiny(), Loader(10), Loader(3))
    assert not scontrol.exists()
    assert run.limit_val_batches == 2
