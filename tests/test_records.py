"""Seeds and micro-batches."""

import random

from gopd_lightning.records import Completion, Prompt, Row, micro_batches, seed_of


def row(uid: int, domain: str, prompt: int, response: int, sample: int = 0) -> Row:
    p = Prompt(uid=uid, domain=domain, dataset=domain, text="", ids=[0] * prompt)
    return Row(prompt=p, completion=Completion(ids=[0] * response, finished=True), sample=sample)


ROWS = [row(i, "ab"[i % 2], 3 + i % 5, 1 + (7 * i) % 11) for i in range(40)]


def names(batches: list[list[Row]]) -> list[list[int]]:
    return [[r.prompt.uid for r in batch] for batch in batches]


def test_seeds_depend_on_every_part_and_nothing_else():
    assert seed_of(0, 1, 2, 3) == seed_of(0, 1, 2, 3)
    assert len({seed_of(0, 1, 2, 3), seed_of(1, 0, 2, 3), seed_of(0, 1, 3, 2), seed_of(0, 1, 2, 4)}) == 4
    assert 0 <= seed_of("x") < 2**63


def test_micro_batches_keep_to_the_budget_and_lose_no_row():
    batches = micro_batches(ROWS, 60)
    assert sorted(uid for batch in names(batches) for uid in batch) == list(range(40))
    for batch in batches:
        assert len(batch) * max(r.length for r in batch) <= 60 or len(batch) == 1


def test_micro_batches_never_mix_domains_and_equal_those_of_the_domains_alone():
    alone = [b for d in "ab" for b in names(micro_batches([r for r in ROWS if r.prompt.domain == d], 60))]
    assert names(micro_batches(ROWS, 60)) == alone


def test_micro_batches_do_not_depend_on_row_order():
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert names(micro_batches(shuffled, 60)) == names(micro_batches(ROWS, 60))


def test_a_row_longer_than_the_budget_stands_alone():
    batches = micro_batches([row(0, "a", 100, 100), row(1, "a", 2, 2)], 50)
    assert names(batches) == [[1], [0]]
