"""`metrics.csv` of a run folder: a Lightning logger with one row a step, exact across kills and resumes."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from gopd_lightning.errors import InputError

STEP = "step"
EVALUATION = ("val/", "test/")


class MetricsFile(Logger):
    """Writes every metric of a step into one row of `metrics.csv`: `step` first, then the names in order.

    `step` is the number of optimizer steps done: Lightning counts batches from 0, so the row of its step 0 is
    row 1. Validation figures join the row of the last training step. A row is on disk as soon as it is
    logged: the last line is written over while its step lasts, the whole file (atomically) only when a column
    is new.

    A resumed run reads what is there and drops the rows from its first step on, so that it ends with the
    rows of a run that was never stopped. A run that only evaluates leaves an existing file alone.

    Args:
        save_dir: The run folder; nothing is read or written there before the first metrics.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._folder = save_dir
        self._columns: list[str] = []
        self._row: dict[str, Any] = {}
        self._start_of_row = 0
        self._training = False
        self._opened = False

    @property
    def name(self) -> str:
        """Empty: the run folder is named by `save_dir` alone."""
        return ""

    @property
    def version(self) -> str:
        """Empty: one run, one folder."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return self._folder

    @property
    def log_dir(self) -> str:
        """The run folder."""
        return self._folder

    @property
    def path(self) -> Path:
        """Where the rows are."""
        return Path(self._folder) / "metrics.csv"

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` of the run folder is the record of the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Merge metrics into the row of their step, and write it.

        Args:
            metrics: Name -> value.
            step: Lightning's step, counted from 0; None means the last one.
        """
        evaluation = all(name.startswith(EVALUATION) or name == "epoch" for name in metrics)
        if evaluation and not self._training:
            self._log_before_training(metrics, step or 0)
            return
        last = self._row.get(STEP, 0)
        row = last if evaluation or step is None else step + 1
        if not self._training or row < last:
            self._training = True
            self._open(row)
        self._merge(metrics, row)

    def _log_before_training(self, metrics: Mapping[str, float], step: int) -> None:
        if self._opened or not self.path.exists():
            self._opened = True
            self._merge(metrics, step)

    def _open(self, first: int) -> None:
        """Read the rows that a former run left, and keep those before step `first`."""
        rows = self._rows_before(first)
        self._columns = sorted({name for row in rows for name, value in row.items() if value} - {STEP})
        self._row = {}
        if self.path.exists():
            self._rewrite(rows)

    def _merge(self, metrics: Mapping[str, float], step: int) -> None:
        if step != self._row.get(STEP):
            self._row = {STEP: step}
            self._start_of_row = self.path.stat().st_size if self.path.exists() else 0
        self._row.update(metrics)
        if new := self._row.keys() - {STEP, *self._columns}:
            rows = self._rows_before(step)
            self._columns = sorted({*self._columns, *new})
            self._rewrite([*rows, self._row])
        else:
            self._write_row()

    def _rows_before(self, step: int) -> list[dict[str, str]]:
        rows = read_rows(self.path) if self.path.exists() else []
        return [row for row in rows if int(row[STEP]) < step]

    def _write_row(self) -> None:
        """Put the current row at the end of the file, over its former self: one write, nothing to lose."""
        line = self._line(self._row)
        with self.path.open("r+b") as file:
            file.seek(self._start_of_row)
            file.write(line)
            file.truncate()

    def _rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = [self._line(row) for row in rows]
        header = self._line({name: name for name in (STEP, *self._columns)})
        self._start_of_row = len(header) + sum(map(len, lines[:-1]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(".metrics.csv.new")
        temporary.write_bytes(b"".join([header, *lines]))
        os.replace(temporary, self.path)

    def _line(self, row: Mapping[str, Any]) -> bytes:
        """One CSV line; floats as Python writes them, so that they are read back to the last bit."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row.get(name, "") for name in (STEP, *self._columns)])
        return text.getvalue().encode()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a `metrics.csv`, values as text; a last line that was cut while being written is left out.

    Args:
        path: The file.

    Returns:
        One dict a row, column name -> text, empty where the step had no such metric.

    Raises:
        InputError: When the file is not one that `MetricsFile` wrote.
    """
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.DictReader(io.StringIO(whole)))
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values() or not row.get(STEP, "").isdecimal():
            raise InputError(f"{path}, line {number}: not a row of metrics; move the file away and start again")
    return rows
