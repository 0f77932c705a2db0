"""Lines: what rows begin with alike stands in them once, and every row can be put together again."""

import random

import torch

from gopd_lightning.lines import Line, lots_of

# a prompt three times, a row inside another, a row twice, and one that is like no other
ROWS = [[4, 5, 6, 1, 2], [7, 8, 9], [4, 5, 6, 1, 3, 2], [7, 8], [4, 5, 6], [7, 8, 9], [0]]


def in_order(rows):
    (lot,) = lots_of(rows, 1000)
    return [rows[i] for i in lot]


def test_what_rows_begin_with_alike_is_there_once():
    line = Line(in_order(ROWS))
    assert line.ids == [0, 4, 5, 6, 1, 2, 3, 2, 7, 8, 9]
    assert line.places == [0, 0, 1, 2, 3, 4, 4, 5, 0, 1, 2]
    assert line.longest == 6


def test_rows_are_where_their_positions_say_in_any_order():
    for rows in (ROWS, in_order(ROWS), ROWS[::-1]):
        line = Line(rows)
        assert [[line.ids[i] for i in positions] for positions in line.positions] == rows
        assert [[line.places[i] for i in positions] for positions in line.positions] == [[*range(len(r))] for r in rows]


def test_states_of_whole_rows_are_those_at_their_positions():
    line = Line(in_order(ROWS))
    states = torch.randn(1, 2, len(line), 3)
    for positions, row in zip(line.positions, line.whole(states), strict=True):
        assert torch.equal(row, states[:, :, positions])


def test_no_order_shares_more_than_the_order_of_a_dictionary():
    chance = random.Random(0)
    for _ in range(50):
        rows = [[chance.randrange(2) for _ in range(chance.randrange(1, 7))] for _ in range(6)]
        beginnings = {tuple(row[: i + 1]) for row in rows for i in range(len(row))}
        assert len(Line(in_order(rows))) == len(beginnings)


def test_lines_keep_to_their_tokens_and_rows_that_begin_alike_together():
    lots = lots_of(ROWS, 8)
    assert lots == [[6, 4, 0, 2], [3, 1, 5]]
    assert [len(Line([ROWS[i] for i in lot])) for lot in lots] == [8, 3]
    assert lots_of(ROWS, 2) == [[6], [4], [0], [2], [3], [1], [5]]  # longer rows have a line each


def test_a_beginning_is_counted_again_in_a_new_line():
    assert lots_of([[1] * 4 + [2] * 3, [1] * 4 + [3] * 3, [1] * 4 + [4] * 3], 10) == [[0, 1], [2]]


def test_masks_hide_what_comes_later():
    line = Line([[1, 2, 3], [1, 2, 4, 5]])
    query = torch.zeros(1, 1, len(line), 2)
    values = torch.arange(5.0).repeat(2, 1).T[None, None]
    found = line.attended(query, torch.zeros_like(values), values, None)[0, :, 0, 0]
    assert torch.allclose(found, torch.tensor([0, 0.5, 1, (0 + 1 + 3) / 3, (0 + 1 + 3 + 4) / 4]))
