from itertools import product

import pytest
import torch

from gopd_lightning.metrics import MajAtK, maj_at_k

RIGHT = {"7": 1.0, "8": 0.0, "9": 0.0, None: 0.0}


def brute_force_majority(votes: tuple[str | None, ...]) -> float:
    """Mean reward over every answer that no other answer outvotes."""
    cast = [vote for vote in votes if vote is not None]
    winners = [vote for vote in set(cast) if all(cast.count(vote) >= cast.count(other) for other in cast)]
    return sum(RIGHT[vote] for vote in winners) / len(winners) if winners else 0.0


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
def test_majority_equals_asking_every_winner(samples):
    for votes in product(RIGHT, repeat=samples):
        assert maj_at_k(votes, [RIGHT[vote] for vote in votes]) == pytest.approx(brute_force_majority(votes))


def test_samples_without_a_vote_do_not_vote():
    assert maj_at_k([None, None, None, "7"], [0, 0, 0, 1]) == 1.0


def test_a_tie_is_worth_its_mean():
    assert maj_at_k(["7", "7", "8", "8", "9"], [1, 1, 0, 0, 0]) == 0.5


def test_a_prompt_on_which_nobody_votes_is_wrong():
    metric = MajAtK()
    metric.update([[None, None], ["7", "7"]], [[0.0, 0.0], [1.0, 1.0]])
    assert metric.compute().item() == 0.5


def test_without_any_vote_there_is_no_figure():
    metric = MajAtK()
    metric.update([[None, None]] * 3, [[1.0, 0.0]] * 3)
    assert metric.compute().isnan()
    assert all(value is None for value in metric.figure().as_dict().values())


def test_a_later_vote_makes_earlier_prompts_count():
    metric = MajAtK()
    metric.update([[None]], [[0.0]])
    metric.update([["7"]], [[1.0]])
    torch.testing.assert_close(metric.per_problem(), torch.tensor([0.0, 1.0], dtype=torch.float64))
