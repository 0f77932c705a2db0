"""Several verifiers as one reward, and what a grader's version covers."""

import pytest

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt, Verdict
from gopd_lightning.verifiers import ExactMatch, Verifier, WeightedSum
from gopd_lightning.verifiers.version import grader_version
from gopd_lightning.verifiers.weighted import Part

PROMPT = Prompt(uid=0, domain="d", dataset="d", text="", ids=[], answer="yes", source="rows.jsonl row 1")


class Brevity(Verifier):
    """1 for short responses, less for long ones."""

    def __init__(self, longest=3):
        self.longest = longest

    def start(self):
        return "brevity is measured"

    def verify(self, prompts, responses):
        return [min(1.0, self.longest / max(len(text), 1)) for text in responses]


def both(weight=0.25):
    return WeightedSum([Part(ExactMatch(), 1 - weight), Part(Brevity(), weight)])


def test_rewards_are_the_weighted_mean():
    found = both().verify([PROMPT] * 3, ["yes", "no", "not at all!!"])
    assert [verdict.reward for verdict in found] == [1.0, 0.25, pytest.approx(0.25 * 3 / 12)]
    assert found[1] == Verdict(reward=0.25, answer="no", reason="not the answer", vote="no")


def test_weights_need_not_add_up_to_one():
    doubled = WeightedSum([Part(ExactMatch(), 6), Part(Brevity(), 2)])
    assert doubled.verify([PROMPT], ["no"])[0].reward == 0.25


def test_every_part_is_started_and_looks_at_the_prompt():
    assert both().start() == "brevity is measured"
    with pytest.raises(InputError, match="rows.jsonl row 1: no answer"):
        both().check(Prompt(uid=0, domain="d", dataset="d", text="", ids=[], source="rows.jsonl row 1"))


@pytest.mark.parametrize("parts", [[], [Part(ExactMatch(), 0.0)], [Part(ExactMatch(), float("nan"))]])
def test_sums_of_nothing_are_refused(parts):
    with pytest.raises(InputError, match="WeightedSum"):
        WeightedSum(parts)


def test_version_of_a_grader_changes_with_its_settings_and_class_only():
    assert grader_version(ExactMatch()) == grader_version(ExactMatch())
    others = [ExactMatch(ignore_case=True), Brevity(), Brevity(4), both(), both(0.5)]
    assert len({grader_version(one) for one in [ExactMatch(), *others]}) == 6
