"""What cannot work is refused in one line, with exit code 2, before weights load; what breaks on the way stops well."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny_command import Outcome, command, merge, prepare, write

from gopd_lightning.metrics_file import read_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("merge"))


@pytest.fixture
def content(folder, tmp_path) -> dict[str, Any]:
    return merge(folder, tmp_path / "run")


@pytest.fixture
def lean(content) -> dict[str, Any]:
    """The same with nothing that a test does not need: quicker to parse."""
    model(content).pop("optimizer")
    data(content).pop("test")
    content["trainer"]["callbacks"] = callbacks(content)[:1]
    return content


@pytest.fixture
def no_weights(monkeypatch):
    """Whoever loads weights fails the test."""

    def loaded(*args, **kwargs):
        pytest.fail("weights were loaded before the input was refused")

    monkeypatch.setattr("gopd_lightning.modules.student.load_student", loaded)
    monkeypatch.setattr("gopd_lightning.modules.student.FrozenBank", loaded)


@pytest.fixture
def refused(no_weights, tmp_path, capsys):
    """Runs a fit that must be refused; gives back its one line."""

    def run(content: dict[str, Any] | None, *arguments: str) -> str:
        config = () if content is None else ("--config", write(content, tmp_path / "config.yaml"))
        return one_line(command(capsys, "fit", *config, *arguments))

    return run


def one_line(found: Outcome, code: int = 2) -> str:
    """The only line of standard error."""
    assert found.code == code, found
    assert len(found.errors) == 1, found.errors
    assert found.errors[0].startswith("gopd: ")
    assert len(found.errors[0]) < 400
    assert found.out == ""
    return found.errors[0]


def model(content: dict[str, Any]) -> dict[str, Any]:
    return content["model"]["init_args"]


def data(content: dict[str, Any]) -> dict[str, Any]:
    return content["data"]["init_args"]


def callbacks(content: dict[str, Any]) -> list[dict[str, Any]]:
    return content["trainer"]["callbacks"]


def rows(content: dict[str, Any], file: Path, *lines: str) -> None:
    """Train on a file with these lines, and one good row before them."""
    good = json.dumps({"prompt": "Q1+1=", "domain": "math", "answer": "2"})
    file.write_text("\n".join([good, *lines]) + "\n")
    data(content)["train"] = [{"path": str(file)}]


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


# The YAML

UNKNOWN = [
    (lambda c: c.update(modl={}), "modl is not an option; did you mean model?"),
    (lambda c: c.update(modl={"a": 1}), "modl is not an option; did you mean model?"),
    (lambda c: c["trainer"].update(max_stepz=3), "trainer.max_stepz is not an option; did you mean max_steps?"),
    (lambda c: c["model"].update(init_arg={}), "model.init_arg is not an option; did you mean init_args?"),
    (
        lambda c: model(c).update(reward_scal=1.5),
        "model.init_args.reward_scal is not an option; did you mean reward_scale?",
    ),
    (
        lambda c: model(c)["teachers"][1].update(reference_model={"path": "x"}),
        "model.init_args.teachers[1].reference_model is not an option; did you mean reference?",
    ),
    (lambda c: model(c)["student"].update(lorra={}), "model.init_args.student.lorra is not an option"),
    (
        lambda c: model(c).update(reference={"pth": "x"}),
        "model.init_args.reference.pth is not an option; did you mean path?",
    ),
    (lambda c: model(c)["optimizer"]["init_args"].update(lrr=1), "model.init_args.optimizer.init_args.lrr is not"),
    (lambda c: data(c)["train"][1].update(dmain="x"), "data.init_args.train[1].dmain is not an option"),
    (
        lambda c: callbacks(c)[0]["init_args"]["sampling"].update(max_tokens=3),
        "trainer.callbacks[0].init_args.sampling.max_tokens is not an option; did you mean max_new_tokens?",
    ),
]
WRONG = [
    (lambda c: model(c).update(reward_scale="big"), "model.init_args.reward_scale is 'big': expected float"),
    (
        lambda c: model(c)["teachers"][1].update(reward_scale="big"),
        "model.init_args.teachers[1].reward_scale is 'big': expected float or null",
    ),
    (lambda c: c["trainer"].update(max_steps="many"), "trainer.max_steps is 'many': expected int"),
    (lambda c: data(c).update(prompts_per_step="four"), "data.init_args.prompts_per_step is 'four': expected int"),
    (
        lambda c: callbacks(c)[0]["init_args"]["sampling"].update(n="two"),
        "trainer.callbacks[0].init_args.sampling.n is 'two': expected int",
    ),
    (lambda c: model(c).update(student="assets"), "model.init_args.student: expected a mapping"),
    (lambda c: model(c)["teachers"][1].pop("path"), "model.init_args.teachers[1].path is missing"),
    (lambda c: model(c)["teachers"][1].pop("domain"), "model.init_args.teachers[1].domain is missing"),
    (lambda c: model(c).pop("student"), "model.init_args.student.path is missing"),
    (lambda c: data(c)["val"][0].pop("path"), "data.init_args.val[0].path is missing"),
]
CLASSES = [
    (
        lambda c: c["model"].update(class_path="gopd_lightning.GOPDX"),
        "model.class_path: there is no gopd_lightning.GOPDX; did you mean gopd_lightning.GOPD?",
    ),
    (lambda c: c["model"].update(class_path="GOPDX"), "model.class_path: GOPDX names no module"),
    (
        lambda c: c["model"].update(class_path="gopd_lightning.PromptData"),
        "model.class_path: gopd_lightning.PromptData is not a LightningModule",
    ),
    (
        lambda c: c["data"].update(class_path="nowhere.PromptData"),
        "data.class_path: there is no nowhere.PromptData",
    ),
    (
        lambda c: model(c)["optimizer"].update(class_path="torch.optim.AdamX"),
        "model.init_args.optimizer.class_path: there is no torch.optim.AdamX",
    ),
    (
        lambda c: callbacks(c)[1].update(class_path="gopd_callbacks.Stop"),
        "trainer.callbacks[1].class_path: there is no gopd_callbacks.Stop",
    ),
    (
        lambda c: callbacks(c)[1].update(class_path="torch.nn.Linear"),
        "trainer.callbacks[1].class_path: torch.nn.Linear is not a Callback",
    ),
]


@pytest.mark.parametrize(("change", "says"), UNKNOWN)
def test_unknown_key(content, refused, tmp_path, change, says):
    change(content)
    assert refused(content).startswith(f"gopd: {tmp_path}/config.yaml: {says}")


@pytest.mark.parametrize(("change", "says"), WRONG)
def test_value_of_the_wrong_type_or_missing(content, refused, tmp_path, change, says):
    change(content)
    assert refused(content).startswith(f"gopd: {tmp_path}/config.yaml: {says}")


@pytest.mark.parametrize(("change", "says"), CLASSES)
def test_class_path_that_does_not_fit(content, refused, tmp_path, change, says):
    change(content)
    assert refused(content).startswith(f"gopd: {tmp_path}/config.yaml: {says}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: model(c).update(estimator="fuller"), "model.estimator is 'fuller'; known: sampled, full"),
        (lambda c: model(c).update(loss_aggregation="mean"), "model.loss_aggregation is 'mean'; known: token_mean"),
        (lambda c: model(c).update(on_nonfinite="go"), "model.on_nonfinite is 'go'; known: stop, skip"),
        (lambda c: model(c).update(reference="teacher"), "model.reference is 'teacher': write student_init"),
        (lambda c: model(c).update(temperature=0.5), "model.temperature is 0.5: say with model.frozen_temperature"),
        (lambda c: callbacks(c)[0]["init_args"]["sampling"].update(n=0), "sampling.n = 0 is out of range"),
        (lambda c: callbacks(c)[0]["init_args"]["sampling"].update(top_p=0.9), "sampling.top_p = 0.9"),
        (lambda c: data(c).update(prompts_per_step=0), "data.init_args.prompts_per_step = 0"),
    ],
)
def test_setting_that_is_out_of_range(lean, refused, change, says):
    change(lean)
    assert refused(lean).startswith(f"gopd: {says}")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--model.rewrd_scale", "2"), "--model.rewrd_scale is not an option; did you mean --model.reward_scale?"),
        (("--trainer.max_stepz=3",), "--trainer.max_stepz is not an option; did you mean --trainer.max_steps?"),
        (("--model.reward_scale", "big"), "--model.reward_scale is 'big': expected float"),
        (("--trainer.max_steps", "0"), "trainer.max_steps is 0"),
    ],
)
def test_flag_that_does_not_fit(content, refused, flags, says):
    assert refused(content, *flags).startswith(f"gopd: {says}")


def test_config_file_that_is_not_there(refused, tmp_path):
    line = refused(None, "--config", str(tmp_path / "nowhere.yaml"))
    assert line == f"gopd: --config: there is no file '{tmp_path}/nowhere.yaml'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model:\n  a: [1, 2\ntrainer: x\n", "not YAML at line 3"),
        ("model: a: b\n", "not YAML at line 1, column 9"),
        ("- 1\n- 2\n", "not a mapping of keys to values"),
        ("", "the file is empty"),
    ],
)
def test_config_file_that_is_malformed(refused, tmp_path, text, says):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert refused(None, "--config", str(file)).startswith(f"gopd: {file}: {says}")


def test_config_without_a_model(content, refused):
    del content["model"]
    assert "no model given" in refused(content)


# During the run


def not_a_number(loss: torch.Tensor) -> torch.Tensor:
    return loss * float("nan")


def infinite_slope(loss: torch.Tensor) -> torch.Tensor:
    return loss + (loss - loss.detach()).sqrt()


@pytest.fixture
def poison(monkeypatch):
    """Spoils the loss of given batches, counted from 1; none heals."""
    from gopd_lightning.modules.on_policy import OnPolicyModule
    from gopd_lightning.objectives import SampledGOPD

    step, objective = OnPolicyModule.training_step, SampledGOPD.__call__
    state: dict[str, Any] = {"batch": 0, "bad": (), "how": not_a_number}

    def counted(self, *args):
        state["batch"] += 1
        return step(self, *args)

    def spoilt(self, *args):
        out = objective(self, *args)
        return out._replace(loss=state["how"](out.loss)) if state["batch"] in state["bad"] else out

    monkeypatch.setattr(OnPolicyModule, "training_step", counted)
    monkeypatch.setattr(SampledGOPD, "__call__", spoilt)
    return lambda *bad, how=not_a_number: state.update(batch=0, bad=bad, how=how)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("how", [not_a_number, infinite_slope])
def test_step_that_is_not_finite_stops_the_run(folder, tmp_path, capsys, poison, how):
    config = write(merge(folder, tmp_path / "run"), tmp_path / "config.yaml")
    poison(2, how=how)
    line = one_line(command(capsys, "fit", "--config", config), code=1)
    assert line.startswith("gopd: step 2: loss ")
    assert "not finite. The weights were not changed" in line
    assert "model.on_nonfinite=skip" in line


def test_run_that_stopped_goes_on_from_its_last_good_checkpoint(folder, tmp_path, capsys, poison):
    config = write(merge(folder, tmp_path / "run"), tmp_path / "config.yaml")
    fit = ("fit", "--config", config, "--trainer.max_steps", "4")
    poison(3)
    line = one_line(command(capsys, *fit), code=1)
    assert f"the last checkpoint in {tmp_path}/run/checkpoints is intact" in line
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())

    poison()
    assert command(capsys, *fit, "--ckpt_path", "last").code == 0
    assert command(capsys, *fit, "--trainer.default_root_dir", str(tmp_path / "whole")).code == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_steps_that_are_not_finite_can_be_skipped_and_counted(folder, tmp_path, capsys, poison):
    content = merge(folder, tmp_path / "run")
    model(content)["on_nonfinite"] = "skip"
    poison(2, 3)
    found = command(capsys, "fit", "--config", write(content, tmp_path / "config.yaml"), "--trainer.max_steps", "4")
    assert found.code == 0, found
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())
    skipped = [row["train/skipped"] for row in read_rows(tmp_path / "run" / "metrics.csv")]
    assert "1.0" in skipped
    assert "0.0" in skipped


def test_ten_skipped_steps_in_a_row_stop_the_run(folder, tmp_path, capsys, poison):
    content = merge(folder, tmp_path / "run")
    model(content)["on_nonfinite"] = "skip"
    poison(*range(2, 100))
    arguments = ("fit", "--config", write(content, tmp_path / "config.yaml"), "--trainer.max_steps", "4")
    line = one_line(command(capsys, *arguments), code=1)
    assert "step 2: loss nan, gradient norm nan: not finite, 10 steps in a row" in line
    assert "on_nonfinite" not in line
