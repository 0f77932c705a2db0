"""Command lines of the study, and the runs that they belong to."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from study.plan import DATA, DOMAINS

GOPD = ("gopd",)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One process.

    Attributes:
        words: The command line; `{rate:METHOD}` and `{step:EXPERTS/DOMAIN}` stand for what validation decides.
        result: The file that is there once it has finished.
    """

    words: tuple[str, ...]
    result: Path


@dataclass(frozen=True, kw_only=True)
class Run:
    """Commands that follow each other, such as the training of a student and its measurement.

    Attributes:
        name: Its folder below `Mode.work`.
        commands: What is run.
        seconds: Planned, on one of two busy cores.
        needs: Names of runs that come before.
        group: What is compared under this name; empty for what is only a means.
        domains: Domains that it is measured on.
        seed: Its seed; None for what has none.
    """

    name: str
    commands: tuple[Command, ...]
    seconds: float
    needs: tuple[str, ...] = ()
    group: str = ""
    domains: tuple[str, ...] = DOMAINS
    seed: int | None = None


def sources(split: str, domains: Sequence[str], limit: int | None = None) -> str:
    """The shipped prompts of a split, as the command line takes them."""
    more = {} if limit is None else {"limit": limit}
    return json.dumps([{"path": f"{DATA}/{d}_{split}.jsonl", "domain": d, "name": d, **more} for d in domains])


def gopd_fit(folder: Path, configs: Sequence[str], seed: int, options: Sequence[str]) -> Command:
    """A fit that goes on where it was stopped.

    Args:
        folder: Its run folder.
        configs: YAML files, each laid over those before.
        seed: Of the order of prompts and of all samples.
        options: Further words.
    """
    words = [*GOPD, "fit", *(word for config in configs for word in ("--config", config))]
    words += ["--seed_everything", str(seed), *options, "--trainer.default_root_dir", str(folder)]
    return Command(words=(*words, "--ckpt_path", "last"), result=folder / "student" / "model.safetensors")


def gopd_test(overlay: str, model: str, prompts: Sequence[object], folder: Path, seed: int) -> tuple[str, ...]:
    """The words of a measurement.

    Args:
        overlay: The YAML that names the callback.
        model: Folder of the model.
        prompts: Sources of prompts.
        folder: Its run folder.
        seed: Of all samples.
    """
    words = (*GOPD, "test", "--config", "configs/eval/nano.yaml", "--config", overlay, "--seed_everything", str(seed))
    words += ("--model.student.path", model, "--data.test", json.dumps(prompts))
    return (*words, "--trainer.default_root_dir", str(folder))
