"""vLLM in the trainer's process: its log-probs are the trainer's, before and after an update; seeds, ends, manners."""

import os
import random

import numpy as np
import pytest
import torch
from gaps import PROMPTS, change, gap

from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.rollouts import RolloutEngine, Vocabulary

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has an environment of its own")
TOLERANCE = 1e-4  # float32 on both sides; a sharp model's log-probs reach -20


def ids(completions):
    return [list(c.ids) for c in completions]


def test_it_is_an_engine(served):
    assert isinstance(served, RolloutEngine)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_logprobs_are_those_of_the_distribution_drawn_from(served, base, sample, temperature):
    served.sync(base, 0)
    assert gap(base, sample(temperature=temperature), temperature or 1.0) < TOLERANCE


def test_logprobs_of_truncated_sampling_are_renormalised(served, base, sample):
    served.sync(base, 0)
    found = sample(top_k=1)
    assert max(abs(x) for c in found for x in c.logprobs) < 1e-6
    assert ids(found) == ids(sample(temperature=0.0))


def test_logprobs_follow_an_update_of_the_weights(served, student, sample):
    served.sync(student, 0)
    assert gap(student, sample()) < TOLERANCE
    change(student)
    served.sync(student, 1)
    found = sample()
    assert gap(student, found) < TOLERANCE
    assert {c.version for c in found} == {1}


def test_a_tied_head_follows_an_update_of_the_embeddings_alone(served, student, sample):
    served.sync(student, 0)
    with torch.no_grad():
        student.get_input_embeddings().weight.mul_(1.2)
    served.sync(student, 1)
    assert gap(student, sample()) < TOLERANCE


def test_a_sync_that_did_not_happen_shows_in_the_gap(served, student, sample):
    served.sync(student, 0)
    change(student)
    served.sync(student, 0)  # the version says that nothing changed
    assert gap(student, sample()) > 0.1


def test_a_weight_that_is_not_handed_over_stops_the_run(served, student, monkeypatch):
    from gopd_lightning.rollouts import vllm_engine

    weights = vllm_engine.served_weights
    monkeypatch.setattr(vllm_engine, "served_weights", lambda lm: (x for x in weights(lm) if "layers.1" not in x[0]))
    with pytest.raises(TrainingError, match="layers.1"):
        served.sync(student, 0)
    monkeypatch.undo()
    served.sync(student, 0)


def test_prefixes_of_the_old_weights_are_dropped(served, student, sample, monkeypatch):
    long = [[5 + i % 90 for i in range(200)]]  # more than one block of the cache

    served.sync(student, 0)
    sample(prompts=long, max_new_tokens=4)
    change(student, 0.1)
    monkeypatch.setattr(served._vllm, "reset_prefix_cache", lambda: True)
    served.sync(student, 1)
    stale = gap(student, sample(prompts=long, max_new_tokens=4), prompts=long)
    monkeypatch.undo()
    served.sync(student, 2)
    assert stale > 100 * TOLERANCE
    assert gap(student, sample(prompts=long, max_new_tokens=4), prompts=long) < TOLERANCE


def test_a_cache_that_cannot_be_dropped_stops_the_run(served, student, monkeypatch):
    monkeypatch.setattr(served, "_source", None)
    served.sync(student, 0)
    monkeypatch.setattr(served._vllm, "reset_prefix_cache", lambda: False)
    with pytest.raises(TrainingError, match="prefixes"):
        served.sync(student, 1)


def test_equal_prompts_differ_by_their_seeds_and_a_seed_repeats_its_tokens(served, base, sample):
    served.sync(base, 0)
    prompts = [PROMPTS[0]] * 4
    found = sample(prompts=prompts, n=2)
    assert len({tuple(c.ids) for c in found}) == 8
    assert ids(found) == ids(sample(prompts=prompts, n=2))
    assert ids(found) == ids(sample(prompts=prompts[:1], n=8))


def test_a_completion_does_not_depend_on_its_neighbours(served, base, sample, vocabulary):
    from gopd_lightning.rollouts import Sampling

    served.sync(base, 0)
    alone = served.generate(PROMPTS[5:6], Sampling(max_new_tokens=24), [5], vocabulary)
    assert ids(alone) == ids(sample())[5:6]


def test_finished_means_a_stop_id_at_the_end_and_nowhere_else(served, base, sample):
    served.sync(base, 0)
    plain = sample(n=4)
    common = max(range(2, 300), key=lambda i: sum(i in c.ids for c in plain))
    stops = (1, common)
    found = sample(n=4, vocabulary=Vocabulary(size=base.config.vocab_size, stop_ids=stops))
    assert {c.finished for c in found} == {True, False}
    for c, whole in zip(found, plain, strict=True):
        assert (c.ids[-1] in stops) == c.finished
        assert not set(c.ids[:-1]) & set(stops)
        assert c.finished or len(c.ids) == 24
        assert list(c.ids) == list(whole.ids)[: len(c.ids)]


def test_padding_rows_of_the_head_are_never_drawn_nor_counted(served, base, sample):
    served.sync(base, 0)
    found = sample(vocabulary=Vocabulary(size=60, stop_ids=(1,)))
    assert max(i for c in found for i in c.ids) < 60
    assert gap(base, found, size=60) < TOLERANCE
    assert gap(base, sample()) < TOLERANCE  # and back


def test_done_is_told_every_completion_once(served, base, sample):
    served.sync(base, 0)
    told = {}
    found = sample(n=2, done=lambda i, c: told.update({i: c}))
    assert [told[i] for i in range(len(found))] == found


def test_a_caller_that_leaves_early_leaves_nothing_running(served, base, sample):
    served.sync(base, 0)

    def leave(number, completion):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(done=leave)
    assert not served._vllm.has_unfinished_requests()
    assert gap(base, sample()) < TOLERANCE


def test_a_prompt_without_room_is_an_error_that_names_the_setting(served, base, sample):
    served.sync(base, 0)
    with pytest.raises(InputError, match="max_model_len is 256"):
        sample(max_new_tokens=250)


def test_sleep_and_wake_change_nothing_on_a_cpu(served, base, sample):
    served.sync(base, 0)
    before = sample()
    served.sleep()
    served.wake()
    served.sync(base, 0)
    assert sample() == before


def test_the_trainers_process_is_as_it_was(served, base, sample):
    served.sync(base, 0)
    state, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    sample()
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy).all()
    assert "LD_PRELOAD" not in os.environ
    assert "LOCAL_WORLD_SIZE" not in os.environ
    assert torch.set_num_threads.__name__ == "set_num_threads"  # not the one that refuses
