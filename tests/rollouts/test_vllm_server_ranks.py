"""Two ranks and a server: rank 0 alone hands over the gathered weights, each rank samples, an error reaches all."""

import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from fake_vllm import FakeVLLM


def test_one_rank_hands_over_the_whole_student_and_all_ranks_sample_from_it(tmp_path):
    server = FakeVLLM()

    def load_once(folder, load=server.load):
        found = load(folder)
        server.load_error = "worn out"
        return found

    server.load = load_once
    server.on_generate = lambda number: time.sleep(number - 1) or 200  # one rank is answered later
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(Path(__file__).parent / "server_ranks.py"), server.url, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    torch.manual_seed(0)
    assert torch.equal(server.loaded[0]["weight"], torch.nn.Linear(6, 4, bias=False).weight)
    assert server.asked["gopd_load_weights"] == 2  # one for each version
    assert not server.interrupted
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [([rank + 7, 2, server.weights + 2, 1], 3)]
        assert "did not take the weights: worn out" in (tmp_path / f"{rank}.txt").read_text()
    server.stop()
