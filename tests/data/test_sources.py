import re

import numpy as np
import pandas
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from datasets import Dataset, DatasetDict

from gopd_lightning.data import SourceSpec, parse_row, read_rows
from gopd_lightning.errors import InputError

FLAT = {"prompt": "one a", "domain": "math", "answer": "7", "response": "b"}
VERL = {
    "data_source": "DeepMath-103K",
    "prompt": [{"role": "user", "content": "one a"}],
    "ability": "reasoning",
    "reward_model": {"style": "rule", "ground_truth": "7"},
    "extra_info": {"index": 3, "split": "train", "opd_teacher": "math"},
}


def rows_of(path, **settings):
    return list(read_rows(SourceSpec(path=path, **settings)))


def test_flat_row_is_read_whole(write):
    (row,) = rows_of(write("a.jsonl", FLAT))
    assert (row.prompt, row.domain, row.answer, row.response) == ("one a", "math", "7", "b")


def test_verl_row_is_read_unchanged(write):
    (row,) = rows_of(write("a.jsonl", VERL))
    assert row.prompt == [{"role": "user", "content": "one a"}]
    assert (row.domain, row.answer, row.response) == ("math", "7", None)


def test_verl_parquet_gives_the_same_rows_as_jsonl(write, tmp_path):
    parquet.write_table(arrow.Table.from_pylist([VERL] * 3), tmp_path / "a.parquet")
    from_parquet = rows_of(str(tmp_path / "a.parquet"))
    from_lines = rows_of(write("a.jsonl", VERL, VERL, VERL))
    assert [(r.prompt, r.domain, r.answer) for r in from_parquet] == [
        (r.prompt, r.domain, r.answer) for r in from_lines
    ]
    assert from_parquet[2].source == f"{tmp_path}/a.parquet row 3"


def test_parquet_written_by_pandas_is_read(tmp_path):
    pandas.DataFrame([VERL | {"prompt": np.array(VERL["prompt"])}]).to_parquet(tmp_path / "a.parquet")
    assert rows_of(str(tmp_path / "a.parquet"))[0].prompt == VERL["prompt"]


def test_numpy_messages_are_taken():
    row = parse_row(VERL | {"prompt": np.array(VERL["prompt"], dtype=object)}, None, "x")
    assert row.prompt == VERL["prompt"]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "ndjson"])
def test_blank_lines_are_skipped_but_counted(write, suffix):
    path = write(f"a.{suffix}", FLAT, "", FLAT)
    assert [row.source for row in rows_of(path)] == [f"{path} row 1", f"{path} row 3"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [(7, "7"), (2.5, "2.5"), ({"inputs": ["1"]}, '{"inputs": ["1"]}'), ("x", "x"), (None, None)],
)
def test_answers_become_text(write, answer, text):
    assert rows_of(write("a.jsonl", FLAT | {"answer": answer}))[0].answer == text


def test_source_domain_fills_in_and_beats_ability(write):
    path = write("a.jsonl", {"prompt": "a", "ability": "reasoning"}, {"prompt": "a"}, {"prompt": "a", "domain": "math"})
    assert [row.domain for row in rows_of(path, domain="math")] == ["math"] * 3


def test_ability_is_the_last_resort(write):
    assert rows_of(write("a.jsonl", {"prompt": "a", "ability": "code"}))[0].domain == "code"


def test_limit_reads_no_further(write):
    assert len(rows_of(write("a.jsonl", FLAT, FLAT, "{broken"), limit=2)) == 2


def test_name_is_the_files_unless_given():
    assert SourceSpec(path="data/aime24.jsonl").dataset == "aime24"
    assert SourceSpec(path="data/test.jsonl", name="aime25").dataset == "aime25"


@pytest.mark.parametrize("split", ["train", "test"])
def test_saved_data_set_folder(tmp_path, split):
    DatasetDict({split: Dataset.from_list([FLAT, FLAT])}).save_to_disk(tmp_path / "saved")
    rows = rows_of(str(tmp_path / "saved"), split=split)
    assert [row.source for row in rows] == [f"{tmp_path}/saved[{split}] row {i}" for i in (1, 2)]


def test_saved_single_data_set(tmp_path):
    Dataset.from_list([VERL]).save_to_disk(tmp_path / "saved")
    assert rows_of(str(tmp_path / "saved"))[0].domain == "math"


def test_folder_of_data_files_goes_through_load_dataset(write, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write("folder/train.jsonl", FLAT, FLAT)
    assert len(rows_of(str(tmp_path / "folder"))) == 2


def test_hub_id_is_asked_for_its_split(monkeypatch):
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda path, split: asked.append((path, split)) or [VERL])
    (row,) = rows_of("Keven16/G-OPD-Training-Data", split="test")
    assert asked == [("Keven16/G-OPD-Training-Data", "test")]
    assert row.source == "Keven16/G-OPD-Training-Data[test] row 1"


def test_failing_hub_id_is_one_line(monkeypatch):
    def fail(path, split):
        raise ConnectionError("no network\nmany\nlines")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(InputError, match="some/set: cannot be loaded") as caught:
        rows_of("some/set")
    assert "\n" not in str(caught.value)


def test_missing_split_of_a_folder_is_named(tmp_path):
    DatasetDict({"train": Dataset.from_list([FLAT])}).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match="split 'val'"):
        rows_of(str(tmp_path / "saved"), split="val")


@pytest.mark.parametrize("path", ["absent.jsonl", "absent.parquet", "/absent/folder", "./absent", "a/b/c"])
def test_missing_file_is_named(path):
    with pytest.raises(InputError, match=f"{re.escape(path)}: no such file"):
        rows_of(path)


def test_empty_file_is_refused(write):
    with pytest.raises(InputError, match=r"a\.jsonl: the data set is empty"):
        rows_of(write("a.jsonl"))


@pytest.mark.parametrize("line", ["{broken", '{"prompt": "a"} trailing', "[1, 2"])
def test_malformed_json_names_its_row(write, line):
    with pytest.raises(InputError, match=r"a\.jsonl row 2: malformed JSON"):
        rows_of(write("a.jsonl", FLAT, line))


def test_bytes_that_are_not_text_name_their_row(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match="row 1: malformed JSON"):
        rows_of(str(tmp_path / "a.jsonl"))


def test_file_that_is_no_parquet_is_named(write):
    with pytest.raises(InputError, match=r"a\.parquet: not a readable parquet file"):
        rows_of(write("a.parquet", "nonsense"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "`prompt` is missing"),
        ({"prompt": " "}, "`prompt` is empty"),
        ({"prompt": []}, "`prompt` is empty"),
        ({"prompt": 3}, "`prompt` must be text or a list of messages, not int"),
        ({"prompt": ["a"]}, "every message"),
        ({"prompt": [{"role": "user"}]}, "every message"),
        ({"prompt": [{"role": "user", "content": ["image"]}]}, "every message"),
        ({"domain": None}, "no domain"),
        ({"domain": ""}, "no domain"),
        ({"domain": 3}, "`domain` must be text, not int"),
        ({"response": 3}, "`response` must be text, not int"),
        ({"extra_info": "math"}, "`extra_info` must be an object, not str"),
        ({"answer": None, "reward_model": "7"}, "`reward_model` must be an object, not str"),
        ({"extra_info": {"opd_teacher": "code"}}, "contradicting domains"),
    ],
)
def test_bad_row_is_one_line_with_file_and_row(write, change, message):
    with pytest.raises(InputError, match=rf"a\.jsonl row 2: .*{re.escape(message)}") as caught:
        rows_of(write("a.jsonl", FLAT, FLAT | change))
    assert "\n" not in str(caught.value)


def test_row_that_is_no_object_is_refused(write):
    with pytest.raises(InputError, match="row 1: expected an object"):
        rows_of(write("a.jsonl", "[1, 2]"))


@pytest.mark.parametrize("row", [FLAT, VERL])
def test_row_that_contradicts_its_source_is_refused(write, row):
    with pytest.raises(InputError, match="row 1: contradicting domains.*'math'.*'code'"):
        rows_of(write("a.jsonl", row), domain="code")


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf")])
def test_weight_must_be_positive(write, weight):
    with pytest.raises(InputError, match=r"a\.jsonl: weight = "):
        rows_of(write("a.jsonl", FLAT), weight=weight)


def test_limit_must_be_positive(write):
    with pytest.raises(InputError, match=r"a\.jsonl: limit = 0"):
        rows_of(write("a.jsonl", FLAT), limit=0)
