"""Ground truths and verifiers that cannot work are refused in one line, with file and row, before weights load."""

import json

import pytest
from refusals import callbacks, data, rows

MATH = {"class_path": "gopd_lightning.verifiers.MathVerifier"}
CODE = {"class_path": "gopd_lightning.verifiers.ProgramVerifier"}
CALLS = {"fn_name": "f", "inputs": [[1]], "outputs": [2]}
HUMAN_EVAL = {
    "entry_point": "f",
    "prompt": "def f():\n",
    "canonical_solution": " return 1\n",
    "test": "def check(c): pass",
}
EVALPLUS = {
    "entry_point": "f",
    "prompt": "",
    "canonical_solution": "def f(x):\n return x\n",
    "base_input": [[1]],
    "plus_input": [],
    "atol": 0,
}


def graded(content, tmp_path, verifier, answer):
    line = {"prompt": "Q1+1=", "domain": "code", "answer": answer}
    good = {"prompt": "Q1+1=", "domain": "code", "answer": json.dumps(CALLS) if verifier is CODE else "1"}
    (tmp_path / "graded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (good, line)))
    data(content)["val"] = [{"path": str(tmp_path / "graded.jsonl")}]
    settings = callbacks(content)[0]["init_args"]
    settings["verify_training"] = False  # the training rows' answers are for another verifier
    settings["verifiers"]["code"] = verifier


def test_source_without_path_or_set(lean, refused):
    data(lean)["val"][0].pop("path")
    assert "data.init_args.val[0] has neither `path` nor `set`; name one of them" in refused(lean)


@pytest.mark.parametrize(
    "answer",
    [None, "", "  ", r"\frac{sqrt{7} + 1}{2}", r"\frac{1}{", "$$"],
    ids=["none", "empty", "blank", "sqrt", "open", "dollars"],
)
def test_gold_that_no_answer_can_equal(lean, refused, tmp_path, answer):
    graded(lean, tmp_path, MATH, answer)
    assert "graded.jsonl row 2" in refused(lean)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "not json",
        "[1, 2]",
        json.dumps({"inputs": ["1"]}),
        json.dumps({"inputs": [], "outputs": []}),
        json.dumps({"inputs": ["1", "2"], "outputs": ["1"]}),
        json.dumps(CALLS | {"inputs": [7]}),
        json.dumps({key: HUMAN_EVAL[key] for key in ("entry_point", "prompt", "canonical_solution")}),
        json.dumps(HUMAN_EVAL | {"test": "def nothing(): pass"}),
        json.dumps(EVALPLUS | {"base_input": []}),
        json.dumps(EVALPLUS | {"canonical_solution": "def f(x:"}),
    ],
    ids=[
        "none",
        "text",
        "list",
        "no-outputs",
        "no-tests",
        "uneven",
        "no-arguments",
        "no-check",
        "no-check-function",
        "no-inputs",
        "syntax",
    ],
)
def test_tests_that_cannot_be_run(lean, refused, tmp_path, answer):
    graded(lean, tmp_path, CODE, answer)
    line = refused(lean)
    assert "graded.jsonl row 2" in line
    assert len(line) < 300


@pytest.mark.parametrize("limit", ["cpu_seconds", "wall_seconds", "memory_mb", "workers"])
def test_limit_of_zero(lean, refused, limit):
    callbacks(lean)[0]["init_args"]["verifiers"]["code"] = CODE | {"init_args": {limit: 0}}
    assert f"ProgramVerifier.{limit} is 0" in refused(lean)


def test_math_limit_of_zero(lean, refused):
    callbacks(lean)[0]["init_args"]["verifiers"]["code"] = MATH | {"init_args": {"seconds": 0}}
    assert "MathVerifier.seconds is 0" in refused(lean)


def test_unknown_verifier(lean, refused):
    callbacks(lean)[0]["init_args"]["verifiers"]["code"] = {"class_path": "gopd_lightning.verifiers.MathsVerifier"}
    assert "gopd_lightning.verifiers.MathsVerifier" in refused(lean)


def test_class_that_is_no_verifier(lean, refused):
    callbacks(lean)[0]["init_args"]["verifiers"]["code"] = {"class_path": "gopd_lightning.records.Batch"}
    assert "verifiers" in refused(lean)


def test_sum_of_no_verifiers(lean, refused):
    empty = {"class_path": "gopd_lightning.verifiers.WeightedSum", "init_args": {"parts": []}}
    callbacks(lean)[0]["init_args"]["verifiers"]["code"] = empty
    assert "WeightedSum.parts is empty" in refused(lean)


def test_weak_sandbox_that_nobody_asked_for(lean, refused, tmp_path, monkeypatch):
    graded(lean, tmp_path, CODE, json.dumps(CALLS))
    rows(lean, tmp_path / "train.jsonl", json.dumps({"prompt": "Q1=", "domain": "code", "answer": json.dumps(CALLS)}))
    refusal = "gopd_lightning.verifiers.sandbox.pool.bubblewrap_refusal"
    monkeypatch.setattr(refusal, lambda: "bwrap is not installed")
    line = refused(lean)
    assert "allow_weak_sandbox: true" in line
    assert "bubblewrap" in line
