"""Evaluation sets by name: every row becomes a prompt with an answer, or one line that names what is wrong."""

import base64
import gzip
import json
import os
import pickle
import zlib
from pathlib import Path

import pytest

from gopd_lightning.data import SourceSpec, read_rows
from gopd_lightning.data.sets import eval_set
from gopd_lightning.errors import InputError

SIZES = {"aime24": 30, "aime25": 30, "hmmt25_feb": 30, "hmmt25_nov": 30, "mbpp_plus": 378}
PROBLEM = {"id": 7, "problem": "What is 1 + {2}?", "answer": 3}
EVALPLUS = {
    "task_id": "HumanEval/0",
    "entry_point": "f",
    "prompt": "def f(x):\n",
    "canonical_solution": "    return x\n",
    "base_input": [[1]],
    "plus_input": [[2]],
    "atol": 0,
}


def rows_of(name, folder, **settings):
    return list(read_rows(SourceSpec(set=name, **settings).located(folder and str(folder))))


def write(folder, name, *rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", SIZES)
def test_files_of_the_field_are_read_whole(name):
    folder = os.environ.get("GOPD_EVAL_DATA")
    if not folder:
        pytest.skip("GOPD_EVAL_DATA names no folder of evaluation files")
    rows = rows_of(name, folder)
    assert len(rows) == len({row.id for row in rows}) == SIZES[name]
    assert all(row.answer and row.prompt[0]["role"] == "user" for row in rows)
    assert {row.domain for row in rows} == {"code" if name == "mbpp_plus" else "math"}


def test_humaneval_comes_from_its_package():
    rows = rows_of("humaneval", None)
    assert len(rows) == 164
    assert json.loads(rows[32].answer)["entry_point"] == "find_zero"
    assert rows[32].prompt[0]["content"].count("def find_zero") == 1
    assert rows[32].source.endswith("row 33 (id HumanEval/32)")


def test_problem_text_is_filled_in_and_asked_for_a_box(tmp_path):
    write(tmp_path, "aime24", PROBLEM)
    (row,) = rows_of("aime24", tmp_path)
    asked = "What is 1 + {2}?\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert row.prompt == [{"role": "user", "content": asked}]
    assert (row.id, row.answer, row.domain) == ("7", "3", "math")


def test_template_and_plain_text_can_be_asked_for(tmp_path):
    write(tmp_path, "aime24", PROBLEM)
    (row,) = rows_of("aime24", tmp_path, template="Q: {problem}\nA:", chat=False)
    assert row.prompt == "Q: What is 1 + {2}?\nA:"


def test_gzipped_files_are_read(tmp_path):
    with gzip.open(tmp_path / "humaneval_plus.jsonl.gz", "wt") as file:
        file.write(json.dumps(EVALPLUS) + "\n")
    (row,) = rows_of("humaneval_plus", tmp_path)
    assert row.id == "HumanEval/0"
    assert json.loads(row.answer)["plus_input"] == [[2]]


def livecodebench(starter):
    kind = "functional" if starter else "stdin"
    hidden = json.dumps([{"input": "5", "output": "6", "testtype": kind}])
    return {
        "question_id": f"abc{len(starter)}",
        "question_content": "Add one.",
        "starter_code": starter,
        "public_test_cases": json.dumps([{"input": "1", "output": "2", "testtype": kind}]),
        "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(hidden))).decode(),
        "metadata": json.dumps({"func_name": "addOne"} if starter else {}),
    }


def test_livecodebench_shows_the_starter_code_or_says_where_input_is(tmp_path):
    write(tmp_path, "livecodebench_v6", livecodebench("class Solution:\n    def addOne(self, x):\n"), livecodebench(""))
    function, program = rows_of("livecodebench_v6", tmp_path)
    assert "class Solution:\n    def addOne(self, x):" in function.prompt[0]["content"]
    assert json.loads(function.answer)["fn_name"] == "addOne"
    assert "stdin" in program.prompt[0]["content"]
    assert json.loads(program.answer)["inputs"] == ["1", "5"]


def test_correction_replaces_the_answer_of_its_row_only(tmp_path):
    write(tmp_path, "aime24", PROBLEM, PROBLEM | {"id": 8})
    rows = rows_of("aime24", tmp_path, corrections={"8": "4"})
    assert [row.answer for row in rows] == ["3", "4"]


@pytest.mark.parametrize(
    ("name", "rows", "settings", "says"),
    [
        ("aime24", [{"id": 7, "problem": "x"}], {}, "row 1: `answer` is missing"),
        ("aime24", [PROBLEM], {"corrections": {"9": "1"}}, "corrections names the id '9', which no row has"),
        ("mbpp_plus", [PROBLEM], {}, "row 1: `entry_point` is missing"),
        ("livecodebench_v6", [livecodebench("") | {"private_test_cases": "!"}], {}, "row 1: its tests cannot be read"),
        ("aime24", [], {}, "the data set is empty"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_row(tmp_path, name, rows, settings, says):
    write(tmp_path, name, *rows)
    with pytest.raises(InputError) as error:
        rows_of(name, tmp_path, **settings)
    assert str(tmp_path / f"{name}.jsonl") in str(error.value)
    assert says in str(error.value)


def test_unknown_set_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown evaluation set 'aime26'; known: aime24, "):
        eval_set("aime26")


def test_set_that_is_not_in_the_folder_says_what_to_put_there(tmp_path):
    with pytest.raises(InputError, match=r"no mbpp_plus.jsonl in data.sets_folder .*MbppPlus.jsonl.gz of the EvalPlus"):
        rows_of("mbpp_plus", tmp_path)


def test_source_needs_a_path_or_a_set():
    with pytest.raises(InputError, match="neither `path` nor `set`"):
        SourceSpec().located(None)


def test_malicious_pickle_in_a_test_file_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    row = livecodebench("") | {"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(Bomb()))).decode()}
    write(tmp_path, "livecodebench_v6", row)
    with pytest.raises(InputError, match="its tests cannot be read"):
        rows_of("livecodebench_v6", tmp_path)
    assert not Path(tmp_path / "owned").exists()
