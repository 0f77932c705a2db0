"""Every command and snippet of the README is run: with fewer steps, in an empty folder, or as a dry run of make."""

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_fit
import yaml

from gopd_lightning.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(program: str) -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    inline = re.findall(r"`((?:gopd|make) [^`]+)`", README)
    inline = [line for line in inline if line.startswith("make ") or len(line.split()) > 2]  # `gopd test` is a word
    found = [line for line in lines + inline if line.startswith(f"{program} ")]
    return list(dict.fromkeys(found))


@pytest.fixture
def short_copy(tmp_path, monkeypatch):
    """A folder with the assets and the default config cut to two steps and sixteen test prompts."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    file = tmp_path / "configs" / "multi_teacher_merge.yaml"
    config = yaml.safe_load(file.read_text())
    config["trainer"] |= {"max_steps": 2, "val_check_interval": 1}
    for split in ("val", "test"):
        for source in config["data"]["init_args"][split]:
            source["limit"] = 8
    config["data"]["init_args"]["prompts_per_step"] = 8
    file.write_text(yaml.safe_dump(config))
    file = tmp_path / "configs" / "eval" / "nano.yaml"
    config = yaml.safe_load(file.read_text())
    for source in config["data"]["init_args"]["test"]:
        source["limit"] = 8
    file.write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str) -> int:
    try:
        words = [found for word in shlex.split(line)[1:] for found in sorted(glob.glob(word)) or [word]]
        main(words)
    except SystemExit as leave:
        return int(leave.code or 0)
    return 0


def test_commands_are_found():
    assert len(commands("gopd")) >= 6
    assert len(commands("make")) >= 4


def test_gopd_commands_run_in_the_order_of_the_readme(short_copy, capsys):
    for line in commands("gopd"):
        if "mine.yaml" in line or "FOLDER" in line:
            continue  # the snippet of "your own teachers" has its own test, and so has the self-test
        assert run(line) == 0, line
    assert (short_copy / "exported" / "model.safetensors").exists()
    for name in ("config.yaml", "metrics.csv", "results.json", "curves.png", "student/config.json"):
        assert (short_copy / "runs" / "multi_teacher_merge" / name).exists(), name
    assert (short_copy / "comparison" / "comparison.md").exists()


@pytest.mark.parametrize("line", commands("make"))
def test_make_targets_exist(line):
    done = subprocess.run(["make", "-n", *line.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_your_own_teachers_snippet_trains(tmp_path, monkeypatch, capsys):
    tiny_fit.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    snippet = yaml.safe_load(blocks("yaml")[0])
    arguments = snippet["model"]["init_args"]
    arguments["student"] = {"path": "base"}
    for teacher in arguments["teachers"]:
        teacher |= {"path": teacher["domain"], "dtype": "float32"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(snippet))
    base = yaml.safe_load((ROOT / "configs" / "exopd.yaml").read_text())
    base["data"]["init_args"] |= {
        "train": [{"path": "math.jsonl"}, {"path": "code.jsonl"}],
        "prompts_per_step": 4,
        "max_prompt_tokens": 16,
    }
    base["trainer"] |= {"max_steps": 1, "accelerator": "cpu"}
    base["trainer"]["callbacks"][0]["init_args"] = {"sampling": {"max_new_tokens": 8}}
    (tmp_path / "method.yaml").write_text(yaml.safe_dump(base))
    assert run("gopd fit --config method.yaml --config mine.yaml") == 0


def test_your_own_reward_is_part_of_a_sum(short_copy, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.getcwd())])
    code = next(block for block in blocks("python") if "my_rewards.py" in block)
    (short_copy / "my_rewards.py").write_text(code)
    assert len(code.splitlines()) <= 11  # "ten lines", and the name of the file
    verifiers = yaml.safe_load(next(block for block in blocks("yaml") if "my_rewards" in block))["verifiers"]
    config = yaml.safe_load((short_copy / "configs" / "eval" / "nano.yaml").read_text())
    config["data"]["init_args"]["test"] = config["data"]["init_args"]["test"][:1]
    config["trainer"]["callbacks"][0]["init_args"]["verifiers"] = verifiers
    (short_copy / "mine.yaml").write_text(yaml.safe_dump(config))
    assert run("gopd test --config mine.yaml") == 0
    (file,) = short_copy.glob("runs/eval/base-*/math.jsonl")
    rewards = {json.loads(line)["reward"] for line in file.read_text().splitlines()}
    assert rewards <= {0.1, 1.0}  # all responses are short
    assert len(rewards) == 2


def test_python_snippets_print_what_they_say():
    for block in blocks("python"):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", block], capture_output=True, text=True, env=environment, check=True
        )
        expected = re.findall(r"print\(.*\)  # (.*)", block)
        assert done.stdout.splitlines() == expected
