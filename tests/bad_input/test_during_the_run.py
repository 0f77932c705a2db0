"""What breaks on the way stops well, and leaves a checkpoint to go on from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import model, one_line
from tiny_command import command, merge, write

from gopd_lightning.metrics_file import read_rows

# During the run


def not_a_number(loss: torch.Tensor) -> torch.Tensor:
    return loss * float("nan")


def infinite_slope(loss: torch.Tensor) -> torch.Tensor:
    return loss + (loss - loss.detach()).sqrt()


@pytest.fixture
def poison(monkeypatch):
    """Spoils the loss of given batches, counted from 1; none heals."""
    from gopd_lightning.modules.on_policy import OnPolicyModule
    from gopd_lightning.objectives import SampledGOPD

    step, objective = OnPolicyModule.training_step, SampledGOPD.__call__
    state: dict[str, Any] = {"batch": 0, "bad": (), "how": not_a_number}

    def counted(self, *args):
        state["batch"] += 1
        return step(self, *args)

    def spoilt(self, *args):
        out = objective(self, *args)
        return out._replace(total=state["how"](out.total)) if state["batch"] in state["bad"] else out

    monkeypatch.setattr(OnPolicyModule, "training_step", counted)
    monkeypatch.setattr(SampledGOPD, "__call__", spoilt)
    return lambda *bad, how=not_a_number: state.update(batch=0, bad=bad, how=how)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("how", [not_a_number, infinite_slope])
def test_step_that_is_not_finite_stops_the_run(folder, tmp_path, capsys, poison, how):
    config = write(merge(folder, tmp_path / "run"), tmp_path / "config.yaml")
    poison(2, how=how)
    line = one_line(command(capsys, "fit", "--config", config), code=1)
    assert line.startswith("gopd: step 2: loss ")
    assert "not finite. The weights were not changed" in line
    assert "model.on_nonfinite=skip" in line


def test_run_that_stopped_goes_on_from_its_last_good_checkpoint(folder, tmp_path, capsys, poison):
    config = write(merge(folder, tmp_path / "run"), tmp_path / "config.yaml")
    fit = ("fit", "--config", config, "--trainer.max_steps", "4")
    poison(3)
    line = one_line(command(capsys, *fit), code=1)
    assert f"the last checkpoint in {tmp_path}/run/checkpoints is intact" in line
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())

    poison()
    assert command(capsys, *fit, "--ckpt_path", "last").code == 0
    assert command(capsys, *fit, "--trainer.default_root_dir", str(tmp_path / "whole")).code == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_steps_that_are_not_finite_can_be_skipped_and_counted(folder, tmp_path, capsys, poison):
    content = merge(folder, tmp_path / "run")
    model(content)["on_nonfinite"] = "skip"
    poison(2, 3)
    found = command(capsys, "fit", "--config", write(content, tmp_path / "config.yaml"), "--trainer.max_steps", "4")
    assert found.code == 0, found
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())
    skipped = [row["train/skipped"] for row in read_rows(tmp_path / "run" / "metrics.csv")]
    assert "1.0" in skipped
    assert "0.0" in skipped


def test_ten_skipped_steps_in_a_row_stop_the_run(folder, tmp_path, capsys, poison):
    content = merge(folder, tmp_path / "run")
    model(content)["on_nonfinite"] = "skip"
    poison(*range(2, 100))
    arguments = ("fit", "--config", write(content, tmp_path / "config.yaml"), "--trainer.max_steps", "4")
    line = one_line(command(capsys, *arguments), code=1)
    assert "step 2: loss nan, gradient norm nan: not finite, 10 steps in a row" in line
    assert "on_nonfinite" not in line
