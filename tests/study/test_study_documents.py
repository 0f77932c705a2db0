"""Documents are made of the results alone: no claim without its verdict, and what is missing is said."""

import json

import pytest
from measured import answered

from study import results as results_module
from study.claims import CLAIMS
from study.document import write_documents
from study.plan import FULL
from study.results import gather

GOOD, BAD = ([[1, 1]] * 60, [1] * 60), ([[1, 0]] * 30 + [[0, 0]] * 30, [1] * 10 + [0] * 50)


class SmallDesign:
    """Two seeds of two methods, their teachers and the base."""

    def __init__(self, work):
        self.mode = type("Mode", (), {**vars(FULL), "work": work, "grids": {}, "experts": {}})
        both = lambda found: {"math": found, "code": found}  # noqa: E731
        made = [("early/exopd-2", GOOD), ("early/opd", BAD), ("early/exopd-1.25", BAD)]
        self.runs = [
            answered(work, f"{group}/{seed}", both(found), group=group, seed=seed)
            for group, found in made
            for seed in (0, 1)
        ]
        self.runs += [answered(work, "models/base", both(BAD), group="base")]
        self.runs += [answered(work, "models/early", both(BAD), group="early/teachers")]
        for run in self.runs[:6]:
            (work / run.name / "metrics.csv").write_text("step,length/math,reward/math\n1,20,0.5\n2,21,0.6\n")
        missing = answered(work, "early/sft-raw/0", both(BAD), group="early/sft-raw", seed=0)
        (work / missing.name / "record.json").unlink()
        self.runs = (*self.runs, missing)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    results = gather(SmallDesign(folder / "work"))
    write_documents(results, folder / "docs")
    return folder / "docs"


def claim(made, name):
    content = json.loads((made / "study" / "claims.json").read_text())
    return next(one for one in content if one["claim"] == name)


def test_every_claim_has_a_verdict_a_command_and_a_picture(made):
    content = json.loads((made / "study" / "claims.json").read_text())
    assert [one["claim"] for one in content] == [one.name for one in CLAIMS]
    for one in content:
        assert {column["verdict"] for column in one["measures"].values()} <= {
            "holds",
            "does not hold",
            "undecided",
            "not measured",
        }
        assert one["command"].startswith("python study/everything.py ")
        assert one["picture"].endswith(".png")


def test_verdicts_are_those_of_the_answers(made):
    gained = claim(made, "extrapolation-merge-2")["measures"]
    assert gained["sampled"]["verdict"] == "holds"
    assert gained["sampled"]["parts"][0]["mean"] == pytest.approx(75.0)
    assert gained["greedy"]["parts"][0]["mean"] == pytest.approx(100 * 50 / 60, abs=1e-4)
    assert claim(made, "extrapolation-merge")["measures"]["greedy"]["verdict"] == "does not hold"
    assert claim(made, "opd-lands-merge")["measures"]["greedy"]["verdict"] == "holds"
    assert claim(made, "correction")["measures"]["greedy"]["verdict"] == "not measured"
    assert claim(made, "extrapolation-merge")["seeds"] == {"early/exopd-1.25": [0, 1], "early/opd": [0, 1]}


def test_the_document_is_whole_and_says_what_is_missing(made):
    text = (made / "study.md").read_text()
    assert "{{" not in text
    assert "No run has finished yet of: early/sft-raw." in text
    assert "| exopd-2 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 [100.0, 100.0] |" in text
    assert "+75.0 [" in text


def test_pictures_are_drawn_of_what_there_is(made):
    assert (made / "study" / "merge.png").read_bytes().startswith(b"\x89PNG")
    assert not (made / "study" / "strong.png").exists()


def test_cost_stands_beside_accuracy(made):
    group = json.loads((made / "study" / "results.json").read_text())["groups"]["early/exopd-2"]
    assert group["tokens"] == 32 * 41
    assert group["seconds"] == 40.0


def test_a_direction_that_is_not_there_is_told(made, capsys):
    from study.everything import not_shown

    results = json.loads((made / "study" / "results.json").read_text())
    missing = not_shown(results)
    assert "λ = 0.5 is above the base" in missing
    assert "λ = 2 is at least 3 points above λ = 1" not in missing
    assert "NOT SHOWN: λ = 0.5 is above the base (not measured)" in capsys.readouterr().out


def test_results_hold_the_exact_commands(made):
    runs = json.loads((made / "study" / "results.json").read_text())["runs"]
    assert runs["early/opd/0"]["commands"] == ["gopd fit", "gopd test"]
    assert results_module.SCALE["greedy"] == 100.0
