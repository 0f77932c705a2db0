"""Two ranks, each with an engine of its own in one process group: sharded weights are gathered, nothing waits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has an environment of its own")
HERE = Path(__file__).parent


def test_every_rank_samples_from_the_whole_student_sharded_or_not(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(HERE / "two_ranks.py"), str(HERE.parents[1] / "assets/nano/base"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert max(x for one in found for x in one["gaps"]) < 1e-4
    for rank, one in enumerate(found):
        assert [len(ids) for ids in one["ids"]] == [8 - rank] * 4
        assert one["ids"][:2] == one["ids"][2:]  # sharded and whole
