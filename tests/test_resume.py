"""Killed with SIGKILL at a random moment, a run that goes on ends bit for bit as one that was never killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_command import merge, prepare, write

from gopd_lightning.metrics_file import read_rows

STEPS = 24
TIMED = ("time/", "speed/")


def start(config: str, run: Path, *flags: str) -> "subprocess.Popen[str]":
    """The command in a process of its own, as the shell starts it."""
    arguments = ["fit", "--config", config, "--trainer.default_root_dir", str(run), *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "gopd_lightning", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: "subprocess.Popen[str]") -> None:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said


def wait_for(file: Path, process: "subprocess.Popen[str]") -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def rows(run: Path) -> list[dict[str, str]]:
    """The metrics of a run without those that are measured by the clock."""
    return [
        {name: value for name, value in row.items() if not name.startswith(TIMED)}
        for row in read_rows(run / "metrics.csv")
    ]


def differences(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody interrupts, its config, and the seconds that it trained for."""
    folder = prepare(tmp_path_factory.mktemp("resume"))
    content = merge(folder, folder / "unused")
    content["trainer"].update(max_steps=STEPS, val_check_interval=4)
    config = write(content, folder / "config.yaml")
    process = start(config, folder / "whole")
    wait_for(folder / "whole" / "metrics.csv", process)
    began = time.monotonic()
    while len(read_rows(folder / "whole" / "metrics.csv")) < STEPS and process.poll() is None:
        time.sleep(0.01)
    seconds = time.monotonic() - began
    finish(process)
    return {"folder": folder, "config": config, "seconds": seconds}


def test_killed_and_continued_run_equals_the_one_that_was_never_killed(whole):
    seed = int.from_bytes(os.urandom(4), "big")
    moment = random.Random(seed).uniform(0, whole["seconds"])
    run = whole["folder"] / "killed"
    process = start(whole["config"], run, "--ckpt_path", "last")
    wait_for(run / "metrics.csv", process)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    told = f"killed {moment:.3f} s after its first step (seed {seed}), after {len(rows(run))} steps"
    finish(start(whole["config"], run, "--ckpt_path", "last"))

    expected = torch.load(whole["folder"] / "whole/checkpoints/last.ckpt", weights_only=True)
    found = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert found["global_step"] == expected["global_step"] == STEPS, told
    assert not differences(expected["state_dict"], found["state_dict"]), told
    expected_rows = rows(whole["folder"] / "whole")
    assert [row["step"] for row in expected_rows] == [str(step + 1) for step in range(STEPS)]
    assert rows(run) == expected_rows, told
