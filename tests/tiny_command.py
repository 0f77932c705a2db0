"""The real command line on tiny models, in this process: a config of a two-domain merge, and a way to run it."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import yaml

from gopd_lightning.cli import main


class Outcome(NamedTuple):
    """What a command left: exit code, standard output, and standard error as lines."""

    code: int
    out: str
    errors: list[str]


def prepare(folder: Path) -> Path:
    """Models and prompts of the tiny merge."""
    for name, seed in (("base", 0), ("math", 1), ("code", 2)):
        tiny.model(folder / name, seed=seed)
    tiny.prompts(folder / "math.jsonl", "math", 12)
    tiny.prompts(folder / "code.jsonl", "code", 12, start=100)
    return folder


def merge(folder: Path, run: Path) -> dict[str, Any]:
    """The YAML of the tiny merge: what `configs/multi_teacher_merge.yaml` says, on the files of `prepare`."""
    sources = [{"path": str(folder / f"{d}.jsonl"), "domain": d, "name": d} for d in ("math", "code")]
    match = {"class_path": "gopd_lightning.verifiers.ExactMatch"}
    rollout = {
        "sampling": {"n": 1, "max_new_tokens": 8},
        "eval_sampling": {"n": 2, "max_new_tokens": 8},
        "verifiers": {"math": match, "code": match},
    }
    return {
        "seed_everything": 0,
        "model": {
            "class_path": "gopd_lightning.GOPD",
            "init_args": {
                "student": {"path": str(folder / "base")},
                "teachers": [{"domain": d, "path": str(folder / d)} for d in ("math", "code")],
                "reference": "student_init",
                "reward_scale": 1.25,
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
            },
        },
        "data": {
            "class_path": "gopd_lightning.PromptData",
            "init_args": {
                "train": [{key: source[key] for key in ("path", "domain")} for source in sources],
                "val": sources,
                "test": sources,
                "prompts_per_step": 4,
                "max_prompt_tokens": 16,
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": str(run),
            "max_steps": 2,
            "val_check_interval": 2,
            "check_val_every_n_epoch": None,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "gopd_callbacks.Rollout", "init_args": rollout},
                {"class_path": "gopd_callbacks.Speed"},
                {"class_path": "gopd_callbacks.GracefulStop"},
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {
                        "every_n_epochs": 1,
                        "save_on_train_epoch_end": False,
                        "save_last": True,
                        "enable_version_counter": False,
                    },
                },
            ],
        },
    }


def write(content: dict[str, Any], file: Path) -> str:
    """The YAML on disk; returns its path as text."""
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(file)


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    """Run the command line as the shell would."""
    capsys.readouterr()
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["gopd"])  # Lightning wonders about arguments given twice
        try:
            main(list(arguments))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    said = capsys.readouterr()
    return Outcome(code, said.out, said.err.splitlines())
