"""Scoring: aligned with the response, blind to padding, equal over padded vocabularies."""

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from gopd_lightning.models.scoring import PADDED_TOKENS, LocalScorer, trunk

PROMPTS = [[4, 5, 6], [7, 8], [9, 10, 11, 12]]
RESPONSES = [[13, 1], [14, 15, 16, 1], [17]]
IDS = torch.tensor([i for r in RESPONSES for i in r])


@pytest.fixture(scope="module")
def lm(lm_folder):
    return AutoModelForCausalLM.from_pretrained(lm_folder)


def score(lm, prompts=PROMPTS, responses=RESPONSES, vocabulary=None):
    with torch.no_grad():
        ids = torch.tensor([i for r in responses for i in r])
        return LocalScorer(lm, vocabulary or lm.config.vocab_size).score(prompts, responses).logprobs_of(ids)


def test_index_t_scores_response_token_t(lm):
    plain = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        with torch.no_grad():
            log_p = lm(torch.tensor([prompt + response])).logits.log_softmax(-1)[0]
        plain += [log_p[len(prompt) - 1 + t, token] for t, token in enumerate(response)]
    torch.testing.assert_close(score(lm), torch.stack(plain), atol=1e-5, rtol=1e-5)


def test_a_row_scores_the_same_alone(lm):
    alone = torch.cat([score(lm, [p], [r]) for p, r in zip(PROMPTS, RESPONSES, strict=True)])
    torch.testing.assert_close(score(lm), alone, atol=1e-6, rtol=1e-6)


def test_padded_vocabularies_are_equal_over_the_real_tokens(lm, tmp_path):
    padded = AutoModelForCausalLM.from_pretrained(tiny.model(tmp_path / "padded", padding=24))
    real = lm.config.vocab_size
    with torch.no_grad():
        state = lm.state_dict()
        for name, value in padded.state_dict().items():
            value[: state[name].shape[0]] = state[name]
    assert padded.config.vocab_size == real + 24
    torch.testing.assert_close(score(padded, vocabulary=real), score(lm))


def test_padded_and_packed_rows_score_the_same(lm, monkeypatch):
    packed = score(lm)
    monkeypatch.setattr("gopd_lightning.models.scoring.packs", lambda model: False)
    torch.testing.assert_close(score(lm), packed, atol=1e-5, rtol=1e-5)
    monkeypatch.setitem(PADDED_TOKENS, "cpu", 6)  # a lot for every row
    torch.testing.assert_close(score(lm), packed, atol=1e-5, rtol=1e-5)


def test_padded_rows_go_together_where_they_have_a_gradient(lm, monkeypatch):
    monkeypatch.setattr("gopd_lightning.models.scoring.packs", lambda model: False)
    monkeypatch.setitem(PADDED_TOKENS, "cpu", 6)
    calls = []
    monkeypatch.setattr("gopd_lightning.models.scoring.trunk", lambda model, ids: calls.append(1) or trunk(model, ids))
    LocalScorer(lm, lm.config.vocab_size).score(PROMPTS, RESPONSES)  # sharded ranks must run as many forwards
    assert len(calls) == 1
    score(lm)
    assert len(calls) == 4


def test_what_went_through_the_trunk_is_counted(lm, monkeypatch):
    prompts, responses = [[4, 5, 6]] * 2, [[7, 8, 1], [9, 1]]
    scorer = LocalScorer(lm, lm.config.vocab_size)
    assert scorer.score(prompts, responses).positions == (3 + 2 + 1, 3 + 2 + 1)  # the prompt once, no last tokens
    monkeypatch.setattr("gopd_lightning.models.scoring.packs", lambda model: False)
    assert scorer.score(prompts, responses).positions == (5 + 4, 2 * 5)
