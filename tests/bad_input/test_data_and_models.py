"""Data, models and runs that cannot work are refused in one line, with exit code 2, before weights load."""

import json
from pathlib import Path

import pytest
import tiny
from refusals import data, model, rows

# Data


def test_missing_file(lean, refused, tmp_path):
    data(lean)["train"][1]["path"] = str(tmp_path / "nowhere.jsonl")
    assert f"{tmp_path}/nowhere.jsonl: no such file" in refused(lean)


def test_missing_validation_file(lean, refused, tmp_path):
    data(lean)["val"][0]["path"] = str(tmp_path / "nowhere.parquet")
    assert f"{tmp_path}/nowhere.parquet: no such file" in refused(lean)


def test_empty_data_set(lean, refused, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    data(lean)["train"] = [{"path": str(tmp_path / "empty.jsonl"), "domain": "math"}]
    assert "empty.jsonl: the data set is empty" in refused(lean)


def test_no_data_set(lean, refused):
    data(lean)["train"] = []
    assert "data.init_args.train: no source given" in refused(lean)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "Q1", "domain": "math"', "row 2: malformed JSON"),
        ('{"domain": "math", "answer": "1"}', "row 2: `prompt` is missing"),
        ('{"prompt": "  ", "domain": "math"}', "row 2: `prompt` is empty"),
        ('{"prompt": "Q1"}', "row 2: no domain; add a `domain` field"),
        ('{"prompt": "Q1", "domain": "law"}', "row 2: unknown domain 'law'; the model knows code, math"),
        ('["Q1"]', "row 2: expected an object with a `prompt`, found list"),
    ],
)
def test_row_that_cannot_be_used(lean, refused, tmp_path, line, says):
    rows(lean, tmp_path / "train.jsonl", line)
    assert f"{tmp_path}/train.jsonl {says}" in refused(lean)


def test_prompt_limit_that_no_prompt_meets(lean, refused):
    data(lean)["max_prompt_tokens"] = 3
    assert "all 12 prompts are longer than data.init_args.max_prompt_tokens = 3" in refused(lean)


def test_prompt_limit_that_leaves_no_room_for_a_response(lean, refused):
    data(lean)["max_prompt_tokens"] = 125  # the models' context is 128 tokens, a response takes 8
    line = refused(lean)
    assert "max_prompt_tokens (125) + sampling.max_new_tokens (8) exceed the student's context of 128" in line


def test_chat_messages_without_a_chat_template(lean, refused, tmp_path):
    rows(lean, tmp_path / "chat.jsonl", '{"prompt": [{"role": "user", "content": "Q1"}], "domain": "math"}')
    line = refused(lean)
    assert "chat.jsonl row 2: model.student's tokenizer has no chat template" in line


# Models


def test_two_teachers_for_one_domain(lean, refused):
    model(lean)["teachers"][1]["domain"] = "math"
    assert "model.teachers: two teachers for the domain 'math'" in refused(lean)


def test_no_teacher(lean, refused):
    model(lean)["teachers"] = []
    assert "model.teachers is empty" in refused(lean)


def test_lambda_without_a_reference(lean, refused):
    model(lean)["reference"] = None
    line = refused(lean)
    assert "reward_scale is 1.25 for the domain 'math', which needs a reference: set model.reference" in line


def test_tokenizers_that_differ(lean, refused, tmp_path):
    other = tiny.CHARACTERS.replace("cd", "dc")
    model(lean)["teachers"][1]["path"] = tiny.model(tmp_path / "other", characters=other)
    line = refused(lean)
    assert f"teacher:code: the tokenizer of {tmp_path}/other differs" in line
    assert "id 4 is 'd' there and 'c' in the student" in line


def test_tokenizer_with_further_tokens(lean, refused, tmp_path):
    model(lean)["teachers"][0]["path"] = tiny.model(tmp_path / "more", characters=tiny.CHARACTERS + "z")
    assert "has id 39 ('z'), which the student's lacks" in refused(lean)


def test_model_folder_that_is_not_there(lean, refused, tmp_path):
    model(lean)["teachers"][0]["path"] = str(tmp_path / "nowhere")
    assert f"teacher:math: there is no model folder '{tmp_path}/nowhere'" in refused(lean)


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncate_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


def unknown_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen99"}')


def remove_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def break_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ')


def lose_a_shard(folder: Path) -> None:
    shards = {"lm_head.weight": "model-00001-of-00001.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def break_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove_weights, "holds no weights (model.safetensors)"),
        (truncate_weights, "model.safetensors' is missing or damaged"),
        (remove_config, "holds no config.json: not a Hugging Face model"),
        (break_config, "no usable model at"),
        (unknown_type, "no usable model at"),
        (remove_tokenizer, "holds no tokenizer"),
        (break_index, "model.safetensors.index.json"),
        (lose_a_shard, "model-00001-of-00001.safetensors' is missing or damaged"),
        (break_adapter, "adapter_config.json"),
    ],
)
def test_model_folder_that_is_incomplete(lean, refused, tmp_path, damage, says):
    damaged = Path(tiny.model(tmp_path / "damaged"))
    damage(damaged)
    model(lean)["student"]["path"] = str(damaged)
    line = refused(lean)
    assert says in line
    assert "model.student: " in line
    assert str(damaged) in line


def test_unknown_dtype(lean, refused):
    model(lean)["teachers"][1]["dtype"] = "float8"
    assert "teacher:code.dtype is 'float8'; known: float32, bfloat16, float16" in refused(lean)


# The run


def test_run_folder_that_holds_another_run(lean, refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{}")
    line = refused(lean)
    assert f"trainer.default_root_dir: {tmp_path}/run holds a run already" in line
    assert "--ckpt_path last" in line
    assert (tmp_path / "run" / "config.yaml").read_text() == "{}"


def test_no_steps(lean, refused):
    lean["trainer"]["max_steps"] = 0
    assert "trainer.max_steps is 0" in refused(lean)


def test_no_end(lean, refused):
    del lean["trainer"]["max_steps"]
    assert "trainer.max_steps is -1" in refused(lean)


def test_hardware_that_is_not_there(lean, refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    lean["trainer"]["accelerator"] = "cuda"
    assert refused(lean).startswith("gopd: trainer: ")
