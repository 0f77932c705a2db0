"""The same overlay without SLURM: a torchrun on each of two nodes, here both on this machine."""

import os
import re
import signal
import subprocess
import sys

import pytest
from cluster import free_ports
from jobs import ARGUMENTS, ROOT, losses, process_with, wait_for_row

pytestmark = pytest.mark.timeout(400)


def torchrun(folder, port, node):
    """One node's share of the command in the head of configs/cluster/gopd.sbatch."""
    meet = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    meet += [f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-id=merge-{port}"]
    command = [sys.executable, "-m", "torch.distributed.run", *meet, "-m", "gopd_lightning", "fit", *ARGUMENTS]
    command += ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--ckpt_path", "last"]
    command += ["--trainer.default_root_dir", str(folder)]
    with (folder / f"{node}.log").open("a") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


@pytest.fixture
def nodes():
    """Starts a torchrun on each of two nodes; ends what is left of them."""
    started = []

    def start(folder, port):
        started.extend(torchrun(folder, port, node) for node in range(2))
        return started[-2:]

    yield start
    for one in started:
        one.terminate()
        one.wait()


def test_two_torchruns_train_as_the_slurm_job_and_end_when_a_rank_is_killed(nodes, whole, tmp_path):
    port, later = free_ports(2)
    started = nodes(tmp_path, port)
    wait_for_row(tmp_path, 7)
    os.kill(process_with("RANK=1", f"TORCHELASTIC_RUN_ID=merge-{port}"), signal.SIGKILL)
    assert all(one.wait(timeout=60) for one in started)
    said = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert "Signal 9 (SIGKILL) received by PID" in said
    assert re.search(r"Connection (closed|reset) by peer", said)  # which one: whether bytes were on their way
    assert [one.wait(timeout=300) for one in nodes(tmp_path, later)] == [0, 0]
    assert losses(tmp_path) == losses(whole.folder)
