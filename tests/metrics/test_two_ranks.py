import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from graded import prompt, rows
from torch import distributed

from gopd_lightning.metrics import (
    AvgAtK,
    MajAtK,
    PassAtK,
    TokenMean,
    avg_at_k,
    mean_and_stderr,
    pass_at_k,
    share_interval,
)
from gopd_lightning.modules.evaluation import EvaluationMetrics

COUNTS = torch.tensor([0, 1, 4, 2, 3, 4, 0])
SAMPLES = torch.full_like(COUNTS, 4)
VALUES = torch.arange(1.0, 12.0)
VOTES = [["a", "a", None], ["b", "a", "b"], [None, None, None], ["b", "a", None]]
REWARDS = [[float(vote == "a") for vote in votes] for votes in VOTES]


def measure(rank: int) -> dict[str, float | bool]:
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
    low, high = avg.interval()
    figures |= {"low": low, "high": high, **majorities(rank)}
    return {name: value.item() for name, value in figures.items()}


def majorities(rank: int) -> dict[str, torch.Tensor]:
    one, nobody = MajAtK(), MajAtK()
    if rank == 0:  # rank 1 never sees a prompt, and does not call update
        one.update(VOTES, REWARDS)
        nobody.update([[None]], [[1.0]])
    return {"majority": one.compute(), "nobody": nobody.compute().isnan()}


def evaluate(rank: int) -> dict[str, object]:
    """Every row on rank 0 but for one prompt of `shared`; rank 1 sees nothing of the other data sets."""
    names = ("shared", "far", "ungraded")
    metrics = EvaluationMetrics([prompt(i, name) for i, name in enumerate(names)])
    if rank == 1:
        metrics.update(rows(1, [1, 1, 1, 1], "aaaa", "shared"))
    else:
        metrics.update(rows(0, [1, 0, 0, 0], "abcd", "shared"))
        metrics.update(rows(2, [1, 0, 0], "abb", "far"))
        metrics.update(rows(3, [None, None], dataset="ungraded"))
    figures = metrics.figures()
    found = {name: {key: figure.as_dict() for key, figure in of.items()} for name, of in figures.items()}
    return {"logged": metrics.compute("test"), "figures": found}


def worker(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    Path(folder, f"{rank}.json").write_text(json.dumps({**measure(rank), **evaluate(rank)}))
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


def test_two_uneven_ranks_give_the_interval_of_one(figures):
    low, high = share_interval(avg_at_k(COUNTS, SAMPLES))
    assert (figures[0]["low"], figures[0]["high"]) == (low.item(), high.item())


def test_a_rank_without_prompts_does_not_move_the_majority(figures):
    assert figures[0]["majority"] == pytest.approx((1 + 0 + 0 + 0.5) / 4)
    assert figures[0]["nobody"] is True


def test_a_rank_without_prompts_knows_every_figure_of_the_evaluation(figures):
    logged = figures[0]["logged"]
    assert logged["test/shared/avg@4"] == pytest.approx((0.25 + 1) / 2)
    assert logged["test/shared/maj@4"] == pytest.approx((0.25 + 1) / 2)
    assert logged["test/far/avg@3"] == pytest.approx(1 / 3)
    assert logged["test/far/maj@3"] == 0
    assert logged["test/ungraded/length"] == 1.5
    assert not any("ungraded/avg" in name for name in logged)


def test_a_rank_without_prompts_knows_every_interval_of_the_evaluation(figures):
    low, high = share_interval(torch.tensor([0.25, 1.0]))
    shared = figures[0]["figures"]["shared"]
    assert set(shared) == {"avg@4", "pass@1", "pass@2", "pass@4", "maj@4", "length", "truncated", "crashed"}
    assert (shared["avg@4"]["low"], shared["avg@4"]["high"]) == pytest.approx((low.item(), high.item()))
    assert set(figures[0]["figures"]["far"]) == {"avg@3", "pass@1", "pass@2", "pass@3", "maj@3"} | {
        "length",
        "truncated",
        "crashed",
    }


def test_two_uneven_ranks_give_the_token_mean_of_one(figures):
    assert figures[0]["token"] == 6.0


def test_a_rank_without_tokens_does_not_move_the_mean(figures):
    assert figures[0]["lonely"] == 1.5
