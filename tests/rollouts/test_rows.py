"""From prompts to graded rows: samples one by one, and verifiers that fail."""

import pytest
import tiny
from transformers import AutoModelForCausalLM

from gopd_lightning.records import Completion, Prompt, Row, Verdict
from gopd_lightning.rollouts import Sampling, TransformersEngine, Vocabulary, grade, sample_pairs, sample_rows
from gopd_lightning.verifiers import Verifier

SAMPLING = Sampling(n=3, max_new_tokens=9)
VOCABULARY = Vocabulary(size=40, stop_ids=(1, 6))
PROMPTS = [Prompt(uid=7 + i, domain="d", dataset="d", text="", ids=[5, 6 + i, 8]) for i in range(4)]


@pytest.fixture(scope="module")
def engine(lm_folder):
    made = TransformersEngine()
    made.sync(AutoModelForCausalLM.from_pretrained(lm_folder), 0)
    return made


def of_pairs(engine, pairs):
    rows = []
    sample_pairs(engine, pairs, SAMPLING, (0, "evaluation"), tiny.tokenizer(), VOCABULARY, rows.append)
    return {(row.prompt.uid, row.sample): (list(row.completion.ids), row.completion.finished, row.text) for row in rows}


def test_any_subset_of_samples_is_what_all_of_them_would_be(engine):
    rows = sample_rows(engine, PROMPTS, SAMPLING, (0, "evaluation"), tiny.tokenizer(), VOCABULARY)
    whole = {(r.prompt.uid, r.sample): (list(r.completion.ids), r.completion.finished, r.text) for r in rows}
    assert {finished for _, finished, _ in whole.values()} == {True, False}  # both ways to end are looked at
    pairs = [(prompt, k) for prompt in PROMPTS for k in range(3)]
    assert of_pairs(engine, pairs) == whole
    some = [pairs[1], *pairs[3:6], pairs[9], pairs[11]]
    assert of_pairs(engine, some) == {(p.uid, k): whole[p.uid, k] for p, k in some}


def test_samples_are_told_when_they_finish_and_not_at_the_end(engine):
    lengths = []
    pairs = [(prompt, k) for prompt in PROMPTS for k in range(3)]
    done = lambda row: lengths.append(len(row.completion.ids))  # noqa: E731
    sample_pairs(engine, pairs, SAMPLING, (0, "evaluation"), tiny.tokenizer(), VOCABULARY, done)
    assert len(lengths) == 12
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


class Picky(Verifier):
    """Fails on a word, and gives bare rewards."""

    def verify(self, prompts, responses):
        if "boom" in responses:
            raise RuntimeError("cannot\nread this")
        return [float(response) for response in responses]


def rows(*texts, domain="math"):
    prompt = Prompt(uid=0, domain=domain, dataset="d", text="", ids=[])
    return [Row(prompt=prompt, completion=Completion(ids=[1], finished=True), text=text) for text in texts]


def test_verifier_that_fails_on_one_sample_costs_that_sample_only():
    found = rows("1", "boom", "0.5", "7")
    grade(found, {"math": Picky()})
    assert [row.reward for row in found] == [1.0, 0.0, 0.5, 0.0]
    assert [row.verdict.crashed for row in found] == [False, True, False, True]
    assert found[1].verdict.reason == "the verifier failed: RuntimeError: cannot read this"
    assert "a reward of 7.0, which is not in [0, 1]" in found[3].verdict.reason


def test_rows_of_a_domain_without_verifier_stay_ungraded():
    found = [*rows("1"), *rows("1", domain="code")]
    grade(found, {"math": Picky()})
    assert [row.verdict for row in found] == [Verdict(reward=1.0), None]
