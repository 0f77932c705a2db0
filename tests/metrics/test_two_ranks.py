import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from gopd_lightning.metrics import AvgAtK, PassAtK, TokenMean, avg_at_k, mean_and_stderr, pass_at_k

COUNTS = torch.tensor([0, 1, 4, 2, 3, 4, 0])
SAMPLES = torch.full_like(COUNTS, 4)
VALUES = torch.arange(1.0, 12.0)


def measure(rank: int) -> dict[str, float]:
    mine = slice(0, 5) if rank == 0 else slice(5, 7)
    tokens = slice(0, 9) if rank == 0 else slice(9, 11)
    nothing_on_rank_1 = slice(0, 2) if rank == 0 else slice(0, 0)
    avg, passed, token, lonely = AvgAtK(), PassAtK(2), TokenMean(), TokenMean()
    avg.update(COUNTS[mine], SAMPLES[mine])
    passed.update(COUNTS[mine], SAMPLES[mine])
    token.update(VALUES[tokens])
    lonely.update(VALUES[nothing_on_rank_1])
    # The error first: it must not leave merged sums behind for `compute` to merge again.
    figures = {"stderr": avg.stderr(), "avg": avg.compute(), "pass": passed.compute()}
    figures |= {"token": token.compute(), "lonely": lonely.compute()}
    return {name: value.item() for name, value in figures.items()}


def worker(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    Path(folder, f"{rank}.json").write_text(json.dumps(measure(rank)))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(worker, args=(str(folder),), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_both_ranks_compute_the_same(figures):
    assert figures[0] == figures[1]


def test_two_uneven_ranks_give_the_accuracy_of_one(figures):
    mean, error = mean_and_stderr(avg_at_k(COUNTS, SAMPLES))
    assert figures[0]["avg"] == pytest.approx(mean.item(), rel=1e-12)
    assert figures[0]["stderr"] == pytest.approx(error.item(), rel=1e-12)
    assert figures[0]["pass"] == pytest.approx(pass_at_k(COUNTS, SAMPLES, 2).mean().item(), rel=1e-12)


def test_two_uneven_ranks_give_the_token_mean_of_one(figures):
    assert figures[0]["token"] == 6.0


def test_a_rank_without_tokens_does_not_move_the_mean(figures):
    assert figures[0]["lonely"] == 1.5
