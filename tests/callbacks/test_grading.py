"""The verifiers of a run: what is said about them, and how loudly."""

import warnings

import pytest
from gopd_callbacks.grading import Grading
from tiny_run import row

from gopd_lightning.errors import InputError
from gopd_lightning.verifiers import ExactMatch, Verifier


class Fragile(Verifier):
    def start(self):
        return "fragile: handle with care"

    def verify(self, prompts, responses):
        if any(response == "answer 3" for response in responses):
            raise ValueError("three")
        return [1.0 for _ in responses]


def graded(*numbers):
    grading = Grading({"math": Fragile()})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        grading([row(number) for number in numbers])
    return grading, [str(warning.message) for warning in caught]


def test_what_a_verifier_has_to_say_is_shown_at_the_start(capsys):
    grading = Grading({"math": Fragile(), "code": ExactMatch()})
    grading.start({"math", "code"})
    assert capsys.readouterr().out == "math: fragile: handle with care\n"
    grading.start({"code"})  # nobody will ask about math
    assert capsys.readouterr().out == ""


def test_more_than_one_percent_of_failures_is_loud():
    grading, said = graded(3, *range(10, 40))
    assert (grading.graded, grading.crashed) == (31, 1)
    assert len(said) == 1
    assert said[0].startswith("MORE THAN 1 % OF THE SAMPLES COULD NOT BE GRADED")
    assert "1 of 31 samples, which count as wrong; math: the verifier failed: ValueError: three" in said[0]


def test_a_rare_failure_is_told_calmly_and_none_not_at_all():
    _, said = graded(3, *range(10, 310))
    assert said[0].startswith("the grader failed on 1 of 301 samples")
    assert graded(*range(10, 40))[1] == []


def test_domain_without_verifier_is_an_error_where_one_is_needed():
    prompt = row(1, domain="poetry").prompt
    Grading({}).check([prompt], must=False)
    with pytest.raises(InputError, match="the domain 'poetry' has no verifier"):
        Grading({}).check([prompt], must=True)
