"""Batches that rows leave and prompts join: what is read, how much at a time, and that no completion notices."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from gopd_lightning.rollouts import Sampling, TransformersEngine, Vocabulary
from gopd_lightning.rollouts.decoding import _without
from gopd_lightning.rollouts.readers import SlotReader

PROMPTS = [[5 + i % 7] * (1 + i % 9) for i in range(24)]
SAMPLING = Sampling(n=2, max_new_tokens=12)
VOCABULARY = Vocabulary(size=39, stop_ids=(1, 6))


@pytest.fixture(scope="module")
def lm(lm_folder):
    return AutoModelForCausalLM.from_pretrained(lm_folder)


@pytest.fixture
def seen(monkeypatch):
    """Rows of every step, and rows in the batch whenever prompts join."""
    steps, joined = [], []
    step, join = SlotReader.step, SlotReader.join
    monkeypatch.setattr(SlotReader, "step", lambda self, ids: (steps.append(len(ids)), step(self, ids))[1])
    monkeypatch.setattr(
        SlotReader, "join", lambda self, some, n: (joined.append(len(self._slots.lengths)), join(self, some, n))[1]
    )
    return steps, joined


def sampled(lm, prompts, budget, seen):
    engine = TransformersEngine(max_batch_tokens=budget)
    engine.sync(lm, 0)
    engine._reader(lm, 0)  # has been tried on the model before anything is counted
    for list_ in seen:
        list_.clear()
    return engine.generate(prompts, SAMPLING, range(2 * len(prompts)), VOCABULARY)


def test_a_row_costs_a_step_for_each_of_its_tokens_and_no_more(lm, seen):
    found = sampled(lm, PROMPTS, 65536, seen)
    assert len({len(completion.ids) for completion in found}) > 3
    assert sum(seen[0]) == sum(len(completion.ids) for completion in found)
    assert seen[1] == [0]


def test_waiting_prompts_take_the_places_of_finished_rows(lm, seen):
    whole = sampled(lm, PROMPTS, 65536, seen)
    some = sampled(lm, PROMPTS, 10 * 21, seen)  # 10 rows of at most 9 + 12 tokens
    assert [completion.ids for completion in some] == [completion.ids for completion in whole]
    assert max(seen[0]) == 10
    assert max(seen[1]) > 0
    assert sum(seen[0]) == sum(len(completion.ids) for completion in whole)


def test_one_long_prompt_takes_no_room_from_the_short_ones(lm, seen):
    found = sampled(lm, [*PROMPTS, [7] * 90], 10 * 21, seen)
    assert max(seen[0]) == 10
    assert all(completion is not None for completion in found)
    assert len(found) == 50


def test_rows_that_stay_move_only_into_places_of_those_that_leave():
    assert _without(6, [0, 4]) == [5, 1, 2, 3]
    assert _without(6, [5]) == [0, 1, 2, 3, 4]
    assert _without(3, [0, 1, 2]) == []
    for seed in range(20):
        gone = torch.randperm(30, generator=torch.Generator().manual_seed(seed))[: seed + 1].sort().values.tolist()
        assert sorted(_without(30, gone)) == sorted(set(range(30)) - set(gone))
