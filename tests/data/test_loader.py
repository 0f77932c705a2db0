from collections import Counter
from fractions import Fraction

import pytest

from gopd_lightning.data import EvalLoader, PromptLoader
from gopd_lightning.errors import InputError


@pytest.fixture
def loader(make_prompts):
    def make(*sizes_and_weights, per_step=4, **settings):
        sources = [
            (make_prompts(size, f"set{i}", 1000 * i), weight) for i, (size, weight) in enumerate(sizes_and_weights)
        ]
        return PromptLoader(sources, per_step, **{"seed": 0} | settings)

    return make


def uids(prompts):
    return [prompt.uid for prompt in prompts]


def seen(loader):
    return [uids(batch.prompts) for batch in loader]


def by_source(prompts):
    return Counter(prompt.dataset for prompt in prompts)


def merged_stream(weights, total):
    """Slow reference: the first items of the merged stream, by walking it."""
    given = [0] * len(weights)
    for _ in range(total):
        nearest = min(range(len(weights)), key=lambda i: (Fraction(2 * given[i] + 1, 2) / weights[i], i))
        given[nearest] += 1
        yield nearest


def test_equal_weights_halve_every_step(loader):
    two = loader((100, 1.0), (300, 1.0), per_step=64)
    for step in range(50):
        assert by_source(two.prompts_at(step)) == {"set0": 32, "set1": 32}


def test_odd_shares_alternate(loader):
    two = loader((50, 1), (50, 1), per_step=5)
    assert [by_source(two.prompts_at(step))["set0"] for step in range(4)] == [3, 2, 3, 2]


@pytest.mark.parametrize(
    "weights", [[1, 1], [3, 1], [0.7, 0.2, 0.1], [1, 100], [1, 1, 1, 1, 1, 1, 1], [1e-3, 5, 2], [1]]
)
@pytest.mark.parametrize("per_step", [1, 7, 64])
def test_steps_cut_the_merged_stream_into_equal_pieces(loader, weights, per_step):
    stream = loader(*((20, weight) for weight in weights), per_step=per_step)
    exact = [Fraction(str(weight)) for weight in weights]
    order = [f"set{source}" for source in merged_stream(exact, 30 * per_step)]
    for step in range(30):
        datasets = [prompt.dataset for prompt in stream.prompts_at(step)]
        assert datasets == order[step * per_step : (step + 1) * per_step]


def test_shares_are_exact_in_the_long_run(loader):
    stream = loader((10, 0.7), (10, 0.2), (10, 0.1), per_step=3)
    counts = sum((by_source(stream.prompts_at(step)) for step in range(100)), Counter())
    assert counts == {"set0": 210, "set1": 60, "set2": 30}


def test_a_source_gives_each_row_once_before_any_twice(loader):
    one = loader((10, 1.0), per_step=4)
    stream = [uid for step in range(10) for uid in uids(one.prompts_at(step))]
    epochs = [stream[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_step_depends_on_its_number_alone(loader):
    walked, jumped = loader((10, 1), (7, 2), per_step=5), loader((10, 1), (7, 2), per_step=5)
    steps = [walked.prompts_at(step) for step in range(40)]
    assert [jumped.prompts_at(step) for step in reversed(range(40))] == steps[::-1]


def test_seed_changes_the_order_and_the_sources_differ(loader):
    first, second = loader((50, 1), (50, 1), per_step=100), loader((50, 1), (50, 1), per_step=100, seed=1)
    assert uids(first.prompts_at(0)) != uids(second.prompts_at(0))
    halves = [[p.uid % 1000 for p in first.prompts_at(0) if p.dataset == name] for name in ("set0", "set1")]
    assert halves[0] != halves[1]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_together_see_the_step(loader, world_size):
    ranks = [loader((10, 1), (9, 1), per_step=8, rank=r, world_size=world_size) for r in range(world_size)]
    parts = [seen(rank) for rank in ranks]
    for step, batches in enumerate(zip(*parts, strict=True)):
        assert sum(batches, []) == uids(ranks[0].prompts_at(step))


def test_every_rank_gets_the_same_mixture(loader):
    for rank in range(4):
        (batch, *_) = loader((100, 1), (100, 3), per_step=64, rank=rank, world_size=4)
        assert by_source(batch.prompts) == {"set0": 4, "set1": 12}


@pytest.mark.parametrize(("sizes", "expected"), [([8], 2), ([9], 3), ([3], 1), ([5, 5], 3)])
def test_epoch_has_enough_steps_for_all_prompts(loader, sizes, expected):
    stream = loader(*((size, 1) for size in sizes))
    assert len(stream) == expected == len(seen(stream))


def test_next_epoch_goes_on_with_the_next_step(loader):
    stream = loader((10, 1), per_step=4)
    assert seen(stream) + seen(stream) == [uids(stream.prompts_at(step)) for step in range(6)]


def test_asking_for_an_iterator_takes_nothing(loader):
    stream = loader((10, 1))
    iter(stream)
    iter(stream)
    assert stream.state_dict() == {"step": 0}


@pytest.mark.parametrize("step", range(7))
def test_resumed_loader_gives_the_rest_of_the_epoch(loader, step):
    straight, resumed = loader((10, 1)), loader((10, 1))
    everything = sum((seen(straight) for _ in range(4)), [])
    resumed.load_state_dict({"step": step})
    rest = seen(resumed)
    assert len(rest) == 3 - step % 3
    assert rest + seen(resumed) == everything[step : step + len(rest) + 3]


def test_state_is_counted_when_the_batch_is_handed_out(loader):
    stream = loader((10, 1))
    batches = iter(stream)
    for expected in (1, 2, 3):
        next(batches)
        assert stream.state_dict() == {"step": expected}


@pytest.mark.parametrize(("limit", "taken"), [(1.0, 10), (0.5, 5), (3, 3), (99, 10), (0, 0), (1, 1)])
def test_limited_epochs_go_on_where_the_last_ended(loader, limit, taken):
    stream = loader((40, 1), limit=limit)
    assert len(stream) == 10
    assert len(seen(stream)) == taken
    assert seen(stream) == [uids(stream.prompts_at(step)) for step in range(taken, 2 * taken)]


@pytest.mark.parametrize(("per_step", "world_size"), [(5, 2), (0, 1), (-4, 2)])
def test_prompts_that_ranks_cannot_share_are_refused(loader, per_step, world_size):
    with pytest.raises(InputError, match=rf"prompts_per_step = {per_step} must be a positive multiple of the"):
        loader((10, 1), per_step=per_step, world_size=world_size)


def test_no_prompts_are_refused(loader):
    for sources in ([], [(0, 1)]):
        with pytest.raises(InputError, match="no prompts to train on"):
            loader(*sources)


def test_evaluation_is_in_order_and_by_data_set(make_prompts):
    mixed = make_prompts(3, "b") + make_prompts(4, "a", 10) + make_prompts(2, "b", 20)
    assert seen(EvalLoader(mixed, 4)) == [[10, 11, 12, 13], [0, 1, 2, 20], [21]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_evaluation_ranks_have_equal_batches_and_share_all_prompts(make_prompts, world_size):
    prompts = make_prompts(11)
    ranks = [EvalLoader(prompts, 4, rank, world_size) for rank in range(world_size)]
    parts = [seen(rank) for rank in ranks]
    assert {len(part) for part in parts} == {3} == {len(rank) for rank in ranks}
    assert sorted(uid for part in parts for batch in part for uid in batch) == list(range(11))
    for batches in zip(*parts, strict=True):
        assert max(map(len, batches)) - min(map(len, batches)) <= 1


def test_evaluation_repeats_itself(make_prompts):
    loader = EvalLoader(make_prompts(5), 2)
    assert seen(loader) == seen(loader)


def test_evaluation_batch_size_must_be_positive(make_prompts):
    with pytest.raises(InputError, match="eval_batch_size = 0"):
        EvalLoader(make_prompts(2), 0)
