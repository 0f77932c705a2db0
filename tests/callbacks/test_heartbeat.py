"""Two real ranks: one that is stopped as if its node had gone ends the run, one that is busy does not."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_fit
from gopd_callbacks import Heartbeat

from gopd_lightning.errors import InputError

TESTS = Path(__file__).parents[1]
FIT = """
import sys, time
from pathlib import Path
sys.path[:0] = {paths!r}
import tiny_fit
from gopd_callbacks import Heartbeat
from lightning.pytorch import Callback

class Busy(Callback):
    def on_train_batch_end(self, trainer, *rest):
        print(f"rank {{trainer.global_rank}} step {{trainer.global_step}}", flush=True)
        time.sleep(4 * {seconds} if trainer.global_step == 1 and {busy} else 0)

if __name__ == "__main__":
    folder = Path({folder!r})
    callbacks = [Heartbeat({seconds}), Busy()]
    settings = dict(strategy="ddp", devices=2, max_steps={steps}, callbacks=callbacks)
    tiny_fit.fit(folder, tiny_fit.build(folder), run="beat", **settings)
    print("finished", flush=True)
"""


@pytest.fixture
def free_port():
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


@pytest.fixture
def start(tmp_path):
    """Starts two ranks as a launcher that watches nobody would; kills what is left of them."""
    tiny_fit.prepare(tmp_path)
    ranks = []

    def call(port, seconds, steps, busy=False):
        script = tmp_path / "fit.py"
        values = {"paths": [str(TESTS), *sys.path], "folder": str(tmp_path), "steps": steps}
        script.write_text(FIT.format(**values, seconds=seconds, busy=busy))
        for rank in range(2):
            own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
            own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
            own |= {"TORCHELASTIC_RUN_ID": "test"}  # as torchrun sets them
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            ranks.append(subprocess.Popen([sys.executable, str(script)], env=os.environ | own, **pipes))
        return ranks

    yield call
    for rank in ranks:
        rank.kill()
        rank.communicate()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_vanishes_ends_the_others_with_a_line_that_names_it(start, free_port, lost):
    ranks = start(free_port, seconds=3, steps=100_000)
    while "step 2" not in ranks[lost].stdout.readline():
        assert ranks[lost].poll() is None
    os.kill(ranks[lost].pid, signal.SIGSTOP)  # its connections stay open, as those of a node without power
    began = time.monotonic()
    _, said = ranks[1 - lost].communicate(timeout=30)
    assert ranks[1 - lost].returncode == 1
    assert f"gopd: nothing heard of rank {lost} on " in said.splitlines()[-1]
    assert time.monotonic() - began < 15


@pytest.mark.timeout(120)
def test_a_rank_that_works_for_long_is_not_lost(start, free_port):
    ranks = start(free_port, seconds=1, steps=3, busy=True)
    for rank in ranks:
        out, said = rank.communicate(timeout=90)
        assert rank.returncode == 0, said[-2000:]
        assert "finished" in out


def test_seconds_must_be_positive():
    with pytest.raises(InputError, match=r"Heartbeat\.seconds is 0"):
        Heartbeat(0)
