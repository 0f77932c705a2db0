"""The engine in the trainer's process: same samples whatever the batch, right log-probs, right ends."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from gopd_lightning.errors import InputError
from gopd_lightning.models.scoring import LocalScorer
from gopd_lightning.records import seed_of
from gopd_lightning.rollouts import Sampling, TransformersEngine, Vocabulary
from gopd_lightning.rollouts.drawing import draw, uniforms

PROMPTS = [[5 + i % 7] * (2 + i % 9) for i in range(12)]


@pytest.fixture(scope="module")
def lm(lm_folder):
    return AutoModelForCausalLM.from_pretrained(lm_folder)


@pytest.fixture
def vocabulary(lm):
    return Vocabulary(size=lm.config.vocab_size, stop_ids=(1, 6))


def sample(lm, vocabulary, sampling, prompts=PROMPTS, budget=65536, start=0):
    engine = TransformersEngine(max_batch_tokens=budget)
    engine.sync(lm, 3)
    seeds = [seed_of(0, 0, start + i, k) for i in range(len(prompts)) for k in range(sampling.n)]
    return engine.generate(prompts, sampling, seeds, vocabulary)


def test_same_samples_whatever_the_batch_size_and_the_neighbours(lm, vocabulary):
    sampling = Sampling(n=3, max_new_tokens=12)
    whole = sample(lm, vocabulary, sampling)
    assert [c.ids for c in whole] == [c.ids for c in sample(lm, vocabulary, sampling, budget=1)]
    alone = sample(lm, vocabulary, sampling, prompts=PROMPTS[4:5], start=4)
    assert [c.ids for c in alone] == [c.ids for c in whole[12:15]]


def test_samples_of_one_prompt_differ_and_seeds_repeat_them(lm, vocabulary):
    sampling = Sampling(n=4, max_new_tokens=12)
    found = sample(lm, vocabulary, sampling)
    assert len({tuple(c.ids) for c in found[:4]}) > 1
    assert [c.ids for c in found] == [c.ids for c in sample(lm, vocabulary, sampling)]


def test_logprobs_equal_the_scorers(lm, vocabulary):
    found = sample(lm, vocabulary, Sampling(n=2, max_new_tokens=12))
    prompts = [p for p in PROMPTS for _ in range(2)]
    ids = torch.tensor([i for c in found for i in c.ids])
    with torch.no_grad():
        scored = LocalScorer(lm, vocabulary.size).score(prompts, [c.ids for c in found]).logprobs_of(ids)
    engine = torch.tensor([x for c in found for x in c.logprobs])
    torch.testing.assert_close(engine, scored, atol=2e-6, rtol=1e-5)


def test_greedy_equals_generate(lm, vocabulary):
    found = sample(lm, vocabulary, Sampling(temperature=0.0, max_new_tokens=10))
    for prompt, completion in zip(PROMPTS, found, strict=True):
        plain = lm.generate(
            torch.tensor([prompt]), max_new_tokens=10, do_sample=False, eos_token_id=list(vocabulary.stop_ids)
        )
        assert plain[0, len(prompt) :].tolist() == list(completion.ids)


def test_finished_means_a_stop_id_at_the_end_and_nowhere_else(lm, vocabulary):
    found = sample(lm, vocabulary, Sampling(n=8, max_new_tokens=6))
    assert {c.finished for c in found} == {True, False}
    for c in found:
        assert (c.ids[-1] in vocabulary.stop_ids) == c.finished
        assert not set(c.ids[:-1]) & set(vocabulary.stop_ids)
        assert len(c.ids) == len(c.logprobs) <= 6
        assert c.finished or len(c.ids) == 6


def test_padding_rows_of_the_head_are_never_drawn(lm):
    small = Vocabulary(size=9, stop_ids=(1,))
    found = sample(lm, small, Sampling(n=4, max_new_tokens=8), prompts=[[5, 6, 7]])
    assert max(i for c in found for i in c.ids) < 9


def test_training_mode_is_given_back(lm, vocabulary):
    lm.train()
    sample(lm, vocabulary, Sampling(max_new_tokens=2))
    assert lm.training
    lm.eval()


def test_drawn_frequencies_are_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(40000, 4)
    ids, logprobs = draw(logits, Sampling(), torch.arange(40000), 0)
    counts = torch.bincount(ids, minlength=4) / 40000
    torch.testing.assert_close(counts, logits[0].softmax(-1), atol=0.01, rtol=0)
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(1, ids[:, None]).squeeze(1))


def test_uniforms_are_uniform_and_differ_by_position():
    u, v = uniforms(torch.arange(20000), 0), uniforms(torch.arange(20000), 1)
    for x in (u, v):
        assert float(x.min()) >= 0
        assert float(x.max()) < 1
        assert abs(float(x.mean()) - 0.5) < 0.01
    assert abs(float(torch.corrcoef(torch.stack([u, v]))[0, 1])) < 0.03


def test_top_p_and_top_k_never_draw_what_they_cut():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).expand(2000, 4)
    assert int(draw(logits, Sampling(top_k=2), torch.arange(2000), 0)[0].max()) == 1
    assert int(draw(logits, Sampling(top_p=0.5), torch.arange(2000), 0)[0].max()) == 0


@pytest.mark.parametrize("bad", [{"n": 0}, {"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}])
def test_impossible_sampling_is_an_error_that_names_the_setting(bad):
    with pytest.raises(InputError, match=f"sampling.{next(iter(bad))}"):
        Sampling(**bad)


def test_blocks_of_a_large_vocabulary_draw_what_one_cumulative_sum_draws():
    logits = 3 * torch.randn(3000, 5000, generator=torch.Generator().manual_seed(0))
    logits[:, 100:2000] = float("-inf")  # whole blocks without any probability
    seeds = torch.arange(3000)
    ids, logprobs = draw(logits, Sampling(), seeds, seeds % 7)
    mass = logits.double().softmax(-1).cumsum(-1)
    plain = torch.searchsorted(mass, uniforms(seeds, seeds % 7)[:, None], right=True).squeeze(-1)
    assert int((ids != plain).sum()) <= 2  # only where a point lies on a boundary, to rounding
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(1, ids[:, None]).squeeze(1))
    assert bool(logprobs.isfinite().all())
