"""The YAMLs of configs/eval: the paper's settings, and a real evaluation of tiny stand-ins with each."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from data.test_sets import EVALPLUS, livecodebench
from tiny_command import command, write

CONFIGS = Path(__file__).parents[1] / "configs" / "eval"
MATH = ("aime24", "aime25", "hmmt25_feb", "hmmt25_nov")
# Every character that a prompt of the sets may hold.
CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that reads any prompt, and one small file for every set."""
    found = tmp_path_factory.mktemp("eval")
    tiny.model(found / "model", template=tiny.TEMPLATE, characters=CHARACTERS, context=8192)
    rows = {name: [{"id": i, "problem": f"What is {i}?", "answer": str(i)} for i in (7, 20)] for name in MATH}
    rows["hmmt25_nov"][1]["answer"] = r"\frac{sqrt{7} + 1}{2}"
    rows |= {"humaneval_plus": [EVALPLUS], "mbpp_plus": [EVALPLUS | {"task_id": "Mbpp/2"}]}
    rows["livecodebench_v6"] = [livecodebench(""), livecodebench("def addOne(x):\n")]
    for name, content in rows.items():
        (found / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    return found


def content(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / name).read_text())


def evaluation(config: dict[str, Any]) -> dict[str, Any]:
    callbacks = config["trainer"]["callbacks"]
    return next(c for c in callbacks if c["class_path"] == "gopd_callbacks.Evaluation")["init_args"]


def shrunk(name: str, folder: Path, run: Path) -> dict[str, Any]:
    config = content(name)
    config["model"]["init_args"]["student"] |= {"path": str(folder / "model"), "dtype": "float32"}
    config["data"]["init_args"] |= {"sets_folder": str(folder)}
    config["trainer"] |= {"accelerator": "cpu", "default_root_dir": str(run)}
    evaluation(config)["sampling"] |= {"n": 2, "max_new_tokens": 4}
    for source in config["data"]["init_args"]["test"]:
        source |= {"limit": 2}
    return config


def test_settings_are_the_papers():
    sampling = {"max_new_tokens": 16384, "temperature": 1.0, "top_p": 1.0}
    for name, samples in (("math.yaml", 32), ("code.yaml", 4)):
        config = content(name)
        assert config["seed_everything"] == 42
        assert evaluation(config)["sampling"] == {"n": samples, **sampling}
        assert config["model"]["init_args"]["student"]["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("name", "sets"),
    [("math.yaml", MATH), ("code.yaml", ("humaneval", "humaneval_plus", "livecodebench_v6", "mbpp_plus"))],
)
def test_every_named_set_is_evaluated(name, sets, folder, tmp_path, capsys):
    found = command(capsys, "test", "--config", write(shrunk(name, folder, tmp_path), tmp_path / "eval.yaml"))
    assert found.code == 0, found
    (summary,) = tmp_path.glob("model-*/summary.json")
    measured = json.loads(summary.read_text())["sets"]
    assert tuple(sorted(measured)) == sets
    for entry in measured.values():
        assert 1 <= entry["problems"] <= 2
        assert {"avg@2", "pass@2", "length", "truncated"} <= set(entry["figures"])


def test_broken_answer_that_goes_round_is_refused_by_name_unless_corrected(folder, tmp_path, capsys):
    config = shrunk("math.yaml", folder, tmp_path)
    config["data"]["init_args"]["test"][3].pop("corrections")
    found = command(capsys, "test", "--config", write(config, tmp_path / "eval.yaml"))
    assert found.code == 2
    assert "hmmt25_nov.jsonl row 2 (id 20)" in found.errors[0]
    assert "sqrt" in found.errors[0]


def test_unknown_set_is_one_line(folder, tmp_path, capsys):
    config = shrunk("math.yaml", folder, tmp_path)
    config["data"]["init_args"]["test"] = [{"set": "aime27"}]
    found = command(capsys, "test", "--config", write(config, tmp_path / "eval.yaml"))
    assert (found.code, len(found.errors)) == (2, 1)
    assert "unknown evaluation set 'aime27'" in found.errors[0]
