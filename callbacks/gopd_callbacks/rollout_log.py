"""A log of what the student said: every N steps a parquet from which the loss can be recomputed by hand."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import Callback, LightningModule, Trainer

from gopd_callbacks.progress import on_terminal
from gopd_lightning.errors import InputError
from gopd_lightning.records import Batch, Row

SCORES = ("student", "teacher", "reference", "advantage", "weight", "loss")
FLOATS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("uid", pa.int64()),
        ("sample", pa.int64()),
        ("domain", pa.string()),
        ("prompt", pa.string()),
        ("response_ids", pa.list_(pa.int64())),
        ("response", pa.string()),
        ("reward", pa.float64()),
        ("finished", pa.bool_()),
        *((name, FLOATS) for name in SCORES),
    ]
)


class RolloutLog(Callback):
    """Writes `rollouts/step-000010.parquet` every N steps, and shows a few completions in a terminal.

    A row a completion. Per response token: the log-probs of student, teacher and reference, the advantage,
    the loss and its weight (the step's loss is the sum of loss x weight); null where they were not computed.

    Args:
        every_n_steps: Optimizer steps from one file to the next.
        console: Completions to print each time, each domain in turn; terminals only, 0 for none.

    Raises:
        InputError: every_n_steps is below 1.
    """

    def __init__(self, every_n_steps: int = 10, console: int = 2) -> None:
        if every_n_steps < 1:
            raise InputError(f"RolloutLog.every_n_steps is {every_n_steps}; it must be at least 1")
        self._every = every_n_steps
        self._console = console

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Write this rank's rows of the step."""
        step = trainer.global_step
        if step % self._every:
            return
        suffix = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        folder = Path(trainer.default_root_dir) / "rollouts"
        write_rows(batch.rows, step, folder / f"step-{step:06}{suffix}.parquet")
        if trainer.is_global_zero and on_terminal():
            for row in one_of_each_domain(batch.rows, self._console):
                print(shown(row, step))


def write_rows(rows: Sequence[Row], step: int, file: Path) -> None:
    """Write rows as parquet, whole or not at all.

    Args:
        rows: The rows.
        step: The optimizer step that they belong to.
        file: Where.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([_record(row, step) for row in rows], schema=SCHEMA)
    temporary = file.with_name(f".{file.name}.new")
    pq.write_table(table, temporary)
    os.replace(temporary, file)


def one_of_each_domain(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows, each domain once before any comes twice.

    Args:
        rows: The rows.
        count: How many.
    """
    turn: dict[str, int] = {}
    ranked = []
    for row in rows:
        turn[row.prompt.domain] = turn.get(row.prompt.domain, -1) + 1
        ranked.append((turn[row.prompt.domain], row))
    return [row for _, row in sorted(ranked, key=lambda pair: pair[0])][:count]


def shown(row: Row, step: int) -> str:
    """A completion as people read it.

    Args:
        row: The row.
        step: The optimizer step.
    """
    reward = "not graded" if row.reward is None else f"reward {row.reward:g}"
    cut = "" if row.completion.finished else ", cut at the length limit"
    head = f"--- step {step}, {row.prompt.domain}, {reward}, {len(row.completion.ids)} tokens{cut}"
    return f"{head}\n{row.prompt.text}\n>>> {row.text}"


def _record(row: Row, step: int) -> dict[str, Any]:
    scores = {name: [float(x) for x in row.scores[name]] for name in SCORES if name in row.scores}
    return {
        "step": step,
        "uid": row.prompt.uid,
        "sample": row.sample,
        "domain": row.prompt.domain,
        "prompt": row.prompt.text,
        "response_ids": list(row.completion.ids),
        "response": row.text,
        "reward": row.reward,
        "finished": row.completion.finished,
        **scores,
    }
