"""Every YAML of configs/ parses, builds and trains on tiny stand-ins; those of the paper hold the paper's numbers."""

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from tiny_command import command, write

from gopd_lightning import FSDP2
from gopd_lightning.metrics_file import read_rows

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAYS = ("engine/", "cluster/")  # put after a config, nothing by themselves
FOUND = sorted(file.relative_to(CONFIGS).as_posix() for file in CONFIGS.rglob("*.yaml"))
FILES = [name for name in FOUND if not name.startswith(OVERLAYS)]
METHODS = [name for name in FILES if not name.startswith("eval/")]
SPLITS = ("train", "val", "test", "predict")
TESTS = json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [2]})


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory) -> Path:
    """A tiny model, and for every domain a file of prompts that every method can use."""
    folder = tmp_path_factory.mktemp("stand-ins")
    tiny.model(folder / "model", template=tiny.TEMPLATE)
    tiny.prompts(folder / "math.jsonl", "math", 8, response="3")
    tiny.prompts(folder / "code.jsonl", "code", 8, response="3")
    rows = [json.loads(line) | {"answer": TESTS} for line in (folder / "code.jsonl").read_text().splitlines()]
    (folder / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / name).read_text())


def shrunk(name: str, folder: Path, run: Path) -> dict[str, Any]:
    """A config with tiny stand-ins for models and data, on one CPU process for one step."""
    content = read(name)
    model, data, trainer = content["model"]["init_args"], content["data"]["init_args"], content["trainer"]
    for spec in (model["student"], *model.get("teachers", ()), model.get("reference")):
        if isinstance(spec, dict):
            spec.update(path=str(folder / "model"), dtype="float32")
    for split in SPLITS:
        for source in data.get(split, ()):
            source["path"] = str(folder / f"{source.get('domain', 'math')}.jsonl")
    data.update(prompts_per_step=4, max_prompt_tokens=32)
    trainer.update(accelerator="cpu", devices=1, num_nodes=1, default_root_dir=str(run), max_steps=1)
    trainer.update(val_check_interval=1)
    trainer.pop("strategy", None)
    for callback in trainer["callbacks"]:
        for key in ("sampling", "eval_sampling"):
            if key in callback.get("init_args", {}):
                callback["init_args"][key].update(max_new_tokens=8)
                callback["init_args"][key].update({"n": 2} if callback["init_args"][key]["n"] > 1 else {})
    return content


def test_there_are_configs():
    assert {"multi_teacher_merge.yaml", "opd.yaml", "exopd.yaml", "strong_to_weak.yaml", "grpo.yaml", "sft.yaml"} <= {
        *FILES
    }
    assert {"nano/pretrain.yaml", "nano/grpo_math.yaml", "nano/grpo_code.yaml"} <= {*FILES}
    assert len([name for name in FILES if name.startswith("paper/")]) >= 7


@pytest.mark.parametrize("name", FILES)
def test_head_comment_says_how_to_launch_and_on_what(name):
    lines = (CONFIGS / name).read_text().splitlines()
    head = list(takewhile(lambda line: line.startswith("#"), lines))
    assert any(line.startswith("# Hardware:") for line in head)
    launch = next(line for line in head if line.startswith("# Launch:"))
    verb = "fit" if name in METHODS else "test"
    assert f"gopd {verb} --config configs/" in launch
    assert f"--config configs/{name}" in launch


@pytest.mark.parametrize("name", METHODS)
def test_strategy_is_the_sharded_one_or_none(name):
    strategy = read(name)["trainer"].get("strategy", {"class_path": "gopd_lightning.FSDP2", "init_args": {}})
    assert strategy["class_path"] == "gopd_lightning.FSDP2"
    FSDP2(**strategy["init_args"])


@pytest.mark.parametrize("name", METHODS)
def test_config_builds_and_trains_a_step_on_stand_ins(name, stand_ins, tmp_path, capsys):
    config = write(shrunk(name, stand_ins, tmp_path / "run"), tmp_path / "config.yaml")
    found = command(capsys, "fit", "--config", config)
    assert found.code == 0, found
    (row,) = read_rows(tmp_path / "run" / "metrics.csv")
    assert row["step"] == "1"
    assert float(row["train/grad_norm"]) >= 0
    assert (tmp_path / "run" / "checkpoints").is_dir()
    weights = "adapter_model" if "lora" in read(name)["model"]["init_args"]["student"] else "model"
    assert (tmp_path / "run" / "student" / f"{weights}.safetensors").exists()


# The paper's numbers: Tables 4 to 7 of arXiv 2602.12125

G_OPD = ("single_teacher", "multi_teacher", "strong_to_weak", "strong_to_weak_corrected")


def rollout(content: dict[str, Any]) -> dict[str, Any]:
    callbacks = content["trainer"]["callbacks"]
    return next(c for c in callbacks if c["class_path"] == "gopd_callbacks.Rollout")["init_args"]


@pytest.mark.parametrize("name", G_OPD)
def test_g_opd_configs_hold_the_papers_numbers(name):
    content = read(f"paper/{name}.yaml")
    model, data = content["model"]["init_args"], content["data"]["init_args"]
    assert content["seed_everything"] == 42
    assert (model["reward_scale"], model["estimator"]) == (1.25, "sampled")
    assert (model["loss_aggregation"], model["importance_weight_cap"]) == ("sequence_mean", 5.0)
    assert model["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert {k: float(v) for k, v in model["optimizer"]["init_args"].items() if k != "betas"} == {
        "lr": 1e-5,
        "weight_decay": 0.01,
    }
    assert model["optimizer"]["init_args"]["betas"] == [0.9, 0.999]
    assert model.get("max_grad_norm", 1.0) == 1.0
    assert "lr_scheduler" not in model
    assert (data["prompts_per_step"], data["max_prompt_tokens"]) == (1024, 2048)
    assert rollout(content)["sampling"] == {"n": 1, "max_new_tokens": 16384, "temperature": 1.0, "top_p": 1.0}
    assert content["trainer"]["max_steps"] == (100 if name.startswith("strong") else 50)
    assert (content["trainer"]["num_nodes"], content["trainer"]["devices"]) == (1, 8)


@pytest.mark.parametrize(
    ("name", "student", "teachers", "reference"),
    [
        ("single_teacher", "Qwen/Qwen3-4B", {"math": "Keven16/Qwen3-4B-Non-Thinking-RL-Math-Step500"}, "student_init"),
        (
            "multi_teacher",
            "Qwen/Qwen3-4B",
            {
                "math": "Keven16/Qwen3-4B-Non-Thinking-RL-Math-Step500",
                "code": "Keven16/Qwen3-4B-Non-Thinking-RL-Code-Step300",
            },
            "student_init",
        ),
        ("strong_to_weak", "Qwen/Qwen3-1.7B", {"math": "Qwen/Qwen3-30B-A3B-Instruct-2507"}, "student_init"),
        (
            "strong_to_weak_corrected",
            "Qwen/Qwen3-1.7B",
            {"math": "Keven16/Qwen3-4B-Non-Thinking-RL-Math-Step500"},
            "Qwen/Qwen3-4B",
        ),
    ],
)
def test_g_opd_configs_name_the_papers_models(name, student, teachers, reference):
    model = read(f"paper/{name}.yaml")["model"]["init_args"]
    assert model["student"]["path"] == student
    assert model["student"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert {teacher["domain"]: teacher["path"] for teacher in model["teachers"]} == teachers
    named = model["reference"]
    assert (named if isinstance(named, str) else named["path"]) == reference


@pytest.mark.parametrize(("domain", "steps", "tokens"), [("math", 500, 16384), ("code", 300, 8192)])
def test_grpo_configs_hold_the_papers_numbers(domain, steps, tokens):
    content = read(f"paper/grpo_{domain}.yaml")
    model, data = content["model"]["init_args"], content["data"]["init_args"]
    assert content["model"]["class_path"] == "gopd_lightning.GRPO"
    assert model["student"]["path"] == "Qwen/Qwen3-4B"
    assert model["student"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert float(model["optimizer"]["init_args"]["lr"]) == 1e-6
    assert (model["normalise_std"], model["importance_weight_cap"]) == (True, 5.0)
    assert (data["prompts_per_step"], data["max_prompt_tokens"]) == (128, 2048)
    assert rollout(content)["sampling"] == {"n": 8, "max_new_tokens": tokens, "temperature": 1.0, "top_p": 1.0}
    assert content["trainer"]["max_steps"] == steps


def test_sft_config_holds_the_papers_numbers():
    content = read("paper/sft.yaml")
    model = content["model"]["init_args"]
    assert float(model["optimizer"]["init_args"]["lr"]) == 1e-5
    assert content["data"]["init_args"]["prompts_per_step"] == 1024
    assert model["max_micro_batch_tokens"] == 32768
    assert content["trainer"]["max_steps"] == 50
    assert model["lr_scheduler"]["init_args"] == {"warmup_steps": 3}  # 5 % of 50
