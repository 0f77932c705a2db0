"""The command line as users type it: stacked configs, overrides, every verb, resuming, and what each leaves behind."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tiny_command import command, merge, prepare, write
from transformers import AutoModelForCausalLM

from gopd_lightning.cli import main
from gopd_lightning.metrics_file import read_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("merge"))


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory) -> dict[str, Any]:
    """A finished run of two steps, and its config file."""
    place = tmp_path_factory.mktemp("done")
    content = merge(folder, place / "run")
    content["trainer"]["callbacks"].append({"class_path": "gopd_callbacks.Results", "init_args": {"samples": 2}})
    config = write(content, place / "config.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["gopd"])
        main(["fit", "--config", config])
    return {"run": place / "run", "config": config}


@pytest.fixture
def no_frozen_models(monkeypatch):
    def loaded(*args: Any, **kwargs: Any) -> None:
        pytest.fail("frozen models were loaded")

    monkeypatch.setattr("gopd_lightning.modules.student.FrozenBank", loaded)


def printed(found: Any) -> dict[str, Any]:
    """The configuration that --print_config printed."""
    assert found.code == 0, found
    return yaml.safe_load(found.out)


def state(run: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {name.removeprefix("student."): value for name, value in content["state_dict"].items()}


def snapshot(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}


# Configurations


def test_the_later_of_stacked_configs_wins(folder, tmp_path, capsys):
    first = write(merge(folder, tmp_path / "run"), tmp_path / "first.yaml")
    overlay = {"model": {"init_args": {"reward_scale": 2.0}}, "trainer": {"max_steps": 7}}
    second = write(overlay, tmp_path / "second.yaml")
    both = printed(command(capsys, "fit", "--config", first, "--config", second, "--print_config"))
    assert both["trainer"]["max_steps"] == 7
    assert both["trainer"]["val_check_interval"] == 2
    assert both["model"]["init_args"]["reward_scale"] == 2.0
    assert len(both["model"]["init_args"]["teachers"]) == 2


def test_dotted_overrides_win_over_configs(folder, tmp_path, capsys):
    config = write(merge(folder, tmp_path / "run"), tmp_path / "config.yaml")
    flags = ("--model.reward_scale", "3", "--model.optimizer.lr", "0.5", "--data.prompts_per_step=6")
    flags += ("--trainer.max_steps", "9")
    found = printed(command(capsys, "fit", "--config", config, *flags, "--print_config"))
    assert found["model"]["init_args"]["reward_scale"] == 3.0
    assert found["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.5
    assert found["data"]["init_args"]["prompts_per_step"] == 6
    assert found["trainer"]["max_steps"] == 9


def test_a_printed_config_parses_again_to_the_same(folder, tmp_path, capsys):
    config = write(merge(folder, tmp_path / "run"), tmp_path / "config.yaml")
    first = command(capsys, "fit", "--config", config, "--print_config")
    (tmp_path / "printed.yaml").write_text(first.out)
    second = command(capsys, "fit", "--config", str(tmp_path / "printed.yaml"), "--print_config")
    assert printed(first) == printed(second)


def test_the_run_folders_config_repeats_the_run(done, tmp_path, capsys):
    config, run = str(done["run"] / "config.yaml"), tmp_path / "again"
    assert command(capsys, "fit", "--config", config, "--trainer.default_root_dir", str(run)).code == 0
    first, again = state(done["run"]), state(run)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_shell_completion(capsys):
    found = command(capsys, "--print_completion", "shtab-bash")
    assert found.code == 0
    assert "complete " in found.out
    assert "predict" in found.out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--help",), ("fit", "validate", "test", "predict", "gopd export RUN OUT", "configs/")),
        (("fit", "--help"), ("--config", "--trainer.max_steps", "--ckpt_path", "--model")),
        (("predict", "--help"), ("--config", "--ckpt_path")),
        (("export", "--help"), ("run folder", "--ckpt", "--dtype")),
    ],
)
def test_help(arguments, names, capsys):
    found = command(capsys, *arguments)
    assert found.code == 0
    assert not found.errors
    assert all(name in found.out for name in names)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            (),
            "gopd: say what to do: fit, validate, test, predict, export, merge, compare, plan; gopd --help tells more",
        ),
        (
            ("fitt",),
            "gopd: fitt is not one of fit, validate, test, predict, export, merge, compare, plan; did you mean fit?",
        ),
        (("fit",), "gopd: no data and model given: a --config file with it is needed"),
        (("export",), "gopd: no run and out given: gopd export --help shows how"),
        (("export", "a", "b", "--x"), "gopd: --x is not an option"),
    ],
)
def test_commands_that_say_too_little_or_too_much(arguments, says, capsys):
    found = command(capsys, *arguments)
    assert (found.code, found.out, found.errors) == (2, "", [says])


# Resuming


def test_a_resumed_run_obeys_its_command_line(folder, tmp_path, capsys):
    config = write(merge(folder, tmp_path / "run"), tmp_path / "config.yaml")
    assert command(capsys, "fit", "--config", config).code == 0
    more = (
        "--ckpt_path",
        "last",
        "--trainer.max_steps",
        "4",
        "--model.reward_scale",
        "2",
        "--model.max_grad_norm",
        "0.25",
    )
    assert command(capsys, "fit", "--config", config, *more, "--model.optimizer.lr", "0.5").code == 0
    rates = [float(row["train/lr"]) for row in read_rows(tmp_path / "run" / "metrics.csv")]
    assert rates == pytest.approx([0.001, 0.001, 0.5, 0.5])
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["model"]["init_args"]["reward_scale"] == 2.0


def test_last_starts_anew_where_there_is_no_checkpoint(folder, tmp_path, capsys):
    config = write(merge(folder, tmp_path / "run"), tmp_path / "config.yaml")
    found = command(capsys, "fit", "--config", config, "--ckpt_path", "last")
    assert (found.code, found.errors) == (0, [])
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_a_finished_run_shows_its_results_again_without_training(done, capsys):
    before = snapshot(done["run"])
    results = json.loads((done["run"] / "results.json").read_text())
    found = command(capsys, "fit", "--config", done["config"], "--ckpt_path", "last")
    assert (found.code, found.errors) == (0, [])
    assert "Accuracy on held-out prompts" in found.out
    for name in ("base", "teacher:math", "teacher:code", "student"):
        assert name in found.out
        assert set(results[name]) == {"math", "code"}
    after = snapshot(done["run"])
    for name in ("metrics.csv", "results.json", "checkpoints/last.ckpt"):
        assert after[name] == before[name], name


# Other verbs


@pytest.mark.parametrize(("verb", "split"), [("validate", "val"), ("test", "test")])
def test_evaluation_prints_accuracies_and_leaves_the_run_alone(done, capsys, no_frozen_models, verb, split):
    before = snapshot(done["run"])
    found = command(capsys, verb, "--config", done["config"], "--ckpt_path", "last")
    assert (found.code, found.errors) == (0, [])
    for name in ("math", "code"):
        assert f"{split}/{name}/avg@2" in found.out
        assert f"{split}/{name}/pass@2" in found.out
    assert snapshot(done["run"]) == before


def test_validation_of_the_last_checkpoint_repeats_the_runs_figures(done, capsys):
    found = command(capsys, "validate", "--config", done["config"], "--ckpt_path", "last")
    line = next(line for line in found.out.splitlines() if "val/math/length" in line)
    logged = float(read_rows(done["run"] / "metrics.csv")[-1]["val/math/length"])
    assert float(line.split()[-2]) == pytest.approx(logged, rel=1e-6)


def predict(done: dict[str, Any], folder: Path, capsys: Any, run: Path, *flags: str) -> Any:
    sources = json.dumps([{"path": str(folder / "math.jsonl"), "domain": "math"}])
    place = ("--trainer.default_root_dir", str(run), "--data.init_args.predict", sources)
    return command(capsys, "predict", "--config", done["config"], *place, *flags)


def test_predict_writes_completions(done, folder, tmp_path, capsys, no_frozen_models):
    found = predict(done, folder, capsys, tmp_path / "out")
    assert (found.code, found.errors) == (0, [])
    assert "24 completions in" in found.out
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["predictions.parquet"]
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    prompts = [json.loads(line)["prompt"] for line in (folder / "math.jsonl").read_text().splitlines()]
    assert [(row["uid"], row["sample"], row["prompt"]) for row in rows] == [
        (i, k, prompt) for i, prompt in enumerate(prompts) for k in range(2)
    ]
    assert {row["domain"] for row in rows} == {"math"}
    assert all(1 <= len(row["response_ids"]) <= 8 for row in rows)
    assert all(row["finished"] or len(row["response_ids"]) == 8 for row in rows)
    assert any(row["response"] for row in rows)


def test_predict_samples_from_the_checkpoint_that_it_is_given(done, folder, tmp_path, capsys):
    last = ("--ckpt_path", str(done["run"] / "checkpoints" / "last.ckpt"))
    fresh = ("--model.optimizer.lr", "1")  # another setting, the same weights
    for name, flags in {"one": last, "two": last, "base": fresh}.items():
        assert predict(done, folder, capsys, tmp_path / name, *flags).code == 0
    read = {name: pq.read_table(tmp_path / name / "predictions.parquet") for name in ("one", "two", "base")}
    assert read["one"].equals(read["two"])
    assert read["one"]["response_ids"] != read["base"]["response_ids"]


def test_predictions_are_rows_to_fine_tune_on(done, folder, tmp_path, capsys):
    assert predict(done, folder, capsys, tmp_path / "out").code == 0
    content = merge(folder, tmp_path / "sft")
    content["model"] = {"class_path": "gopd_lightning.SFT", "init_args": {"student": {"path": str(folder / "base")}}}
    content["data"]["init_args"]["train"] = [{"path": str(tmp_path / "out" / "predictions.parquet")}]
    content["trainer"]["max_steps"] = 1
    assert command(capsys, "fit", "--config", write(content, tmp_path / "sft.yaml")).code == 0


def test_export_writes_the_checkpoints_student(done, tmp_path, capsys):
    out = tmp_path / "student"
    found = command(capsys, "export", str(done["run"]), str(out))
    assert (found.code, found.errors) == (0, [])
    exported = AutoModelForCausalLM.from_pretrained(out).state_dict()
    checkpoint = state(done["run"])
    assert exported.keys() == checkpoint.keys()
    assert all(torch.equal(exported[name], checkpoint[name]) for name in checkpoint)


def test_export_of_what_is_no_run(tmp_path, capsys):
    found = command(capsys, "export", str(tmp_path), str(tmp_path / "out"))
    assert found.code == 2
    assert found.errors == [f"gopd: {tmp_path} is not a run folder: it holds no config.yaml"]
