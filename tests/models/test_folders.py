"""What is wrong with a model's files is said in one line, before any weights load."""

import json
import shutil
from pathlib import Path

import pytest
import tiny

from gopd_lightning.errors import InputError
from gopd_lightning.models.folders import check_model, check_same_tokens, load_tokenizer, stop_ids
from gopd_lightning.models.specs import ModelSpec


def broken(lm_folder: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lm_folder, tmp_path / "broken"))


def complain(folder: object, match: str, **spec: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        check_model(ModelSpec(path=str(folder), **spec), "model.student")
    assert "\n" not in str(caught.value)
    assert "model.student" in str(caught.value)


def test_whole_folder_is_accepted(lm_folder):
    assert check_model(ModelSpec(path=lm_folder), "model.student").model_type == "qwen3"


def test_missing_folder(tmp_path):
    complain(tmp_path / "nowhere", "no model folder")


def test_missing_gguf_file(tmp_path):
    complain(tmp_path / "x.gguf", "no file")


def test_folder_without_config(lm_folder, tmp_path):
    folder = broken(lm_folder, tmp_path)
    (folder / "config.json").unlink()
    complain(folder, "no config.json")


def test_unreadable_config(lm_folder, tmp_path):
    folder = broken(lm_folder, tmp_path)
    (folder / "config.json").write_text("{")
    complain(folder, "no usable model")


def test_folder_without_weights(lm_folder, tmp_path):
    folder = broken(lm_folder, tmp_path)
    (folder / "model.safetensors").unlink()
    complain(folder, "holds no weights")


def test_truncated_weights(lm_folder, tmp_path):
    folder = broken(lm_folder, tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    complain(folder, "missing or damaged")


def test_missing_shard(lm_folder, tmp_path):
    folder = broken(lm_folder, tmp_path)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    complain(folder, "model-00001-of-00002.safetensors' is missing")


def test_unknown_dtype(lm_folder):
    complain(lm_folder, "dtype is 'fp8'", dtype="fp8")


def test_missing_tokenizer(lm_folder, tmp_path):
    folder = broken(lm_folder, tmp_path)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="holds no tokenizer"):
        load_tokenizer(ModelSpec(path=str(folder)), "model.student")


def test_tokenizers_that_differ_are_refused_saying_where():
    ours, theirs = tiny.tokenizer(), tiny.tokenizer(characters=tiny.CHARACTERS.replace("b", "z"))
    with pytest.raises(InputError, match="id 3 is 'z' there and 'b' in the student"):
        check_same_tokens(ours, theirs, "teacher:math", "t")


def test_a_teacher_with_more_tokens_is_refused_saying_which():
    with pytest.raises(InputError, match="which the student's lacks"):
        check_same_tokens(tiny.tokenizer(), tiny.tokenizer(characters=tiny.CHARACTERS + "~"), "t", "t")


def test_every_end_that_the_generation_config_names_is_a_stop(lm_folder, tmp_path):
    folder = broken(lm_folder, tmp_path)
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": [1, 7]}))
    tokenizer = tiny.tokenizer()
    assert stop_ids(ModelSpec(path=str(folder)), tokenizer) == (1, 7)
    (folder / "generation_config.json").unlink()
    assert stop_ids(ModelSpec(path=str(folder)), tokenizer) == (1,)
