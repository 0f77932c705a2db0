"""Folders as `gopd test` leaves them, without a model."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Rewards = Mapping[str, Sequence[Sequence[float]]]
"""By data set, the rewards of each problem's samples."""


def line(dataset: str, problem: int, sample: int, reward: float) -> dict[str, Any]:
    return {
        "id": f"{dataset}-{problem}",
        "sample": sample,
        "prompt": f"What is {problem} + {problem}?",
        "response": "Let me think. " * 3,
        "answer": str(2 * problem) if reward == 1 else "0",
        "reward": reward,
        "reason": "" if reward == 1 else "another number",
        "vote": str(problem),
        "crashed": False,
        "tokens": 12,
        "finished": True,
        "seconds": 0.5,
    }


def evaluation(folder: Path, rewards: Rewards, **summary: Any) -> Path:
    """Write a folder with `summary.json` and one JSONL a data set."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = {}
    for name, problems in rewards.items():
        rows = [line(name, i, k, reward) for i, samples in enumerate(problems) for k, reward in enumerate(samples)]
        write_rows(folder / f"{name}.jsonl", rows)
        sets[name] = {"file": f"{name}.jsonl", "problems": len(problems), "samples": 4, "figures": {}}
    content: dict[str, Any] = {
        "name": folder.name,
        "model": {"path": "some/model"},
        "sampling": {"n": 4, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 64},
        "seed": 0,
        "graders": {"math": {"class_path": "Boxed", "version": "1"}},
        "sets": sets,
    }
    (folder / "summary.json").write_text(json.dumps({**content, **summary}))
    return folder


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in file.read_text().splitlines()]


def drawn(problems: int, samples: int, skill: float, seed: int) -> list[list[float]]:
    """Problems of even difficulty, the same for every run, answered with some skill."""
    chances = random.Random(0)
    draws = random.Random(seed)
    levels = [chances.random() for _ in range(problems)]
    return [[float(draws.random() < min(1.0, level + skill)) for _ in range(samples)] for level in levels]
