"""Where prompts come from: JSONL, parquet, and Hugging Face data sets, each row with its file and number."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gopd_lightning.data.rows import RawRow, parse_row
from gopd_lightning.errors import InputError

_TEXT = {".jsonl", ".json", ".ndjson"}
_FILES = _TEXT | {".parquet"}


@dataclass(kw_only=True)
class SourceSpec:
    """One data set of a split.

    Args:
        path: JSONL or parquet file, a data set folder, or the id of a data set on the Hugging Face hub.
        domain: Domain of rows that name none; rows that name another are an error.
        name: What its figures are called; by default the file's name without its ending.
        weight: Share of a training step's prompts, relative to the other sources.
        limit: Rows to read at most; None reads all.
        split: Split of a data set folder or hub id.
    """

    path: str
    domain: str | None = None
    name: str | None = None
    weight: float = 1.0
    limit: int | None = None
    split: str = "train"

    @property
    def dataset(self) -> str:
        """The name, or what stands in for it."""
        return self.name or Path(self.path).stem


def read_rows(spec: SourceSpec) -> Iterator[RawRow]:
    """Read the rows of one source in their order.

    Args:
        spec: What to read.

    Yields:
        Checked rows; `source` counts rows (lines of text files) from 1.

    Raises:
        InputError: The file is missing, empty or malformed, or a row or a setting cannot be used.
    """
    _check(spec)
    empty = True
    for source, row in islice(_numbered(spec), spec.limit):
        empty = False
        yield parse_row(row, spec.domain, source)
    if empty:
        raise InputError(f"{spec.path}: the data set is empty")


def _check(spec: SourceSpec) -> None:
    if not (math.isfinite(spec.weight) and spec.weight > 0):
        raise InputError(f"{spec.path}: weight = {spec.weight} must be above 0; to leave a source out, delete it")
    if spec.limit is not None and spec.limit < 1:
        raise InputError(f"{spec.path}: limit = {spec.limit} must be at least 1")


def _numbered(spec: SourceSpec) -> Iterator[tuple[str, Any]]:
    path = Path(spec.path)
    if path.suffix in _FILES and not path.is_dir():
        if not path.is_file():
            raise InputError(f"{spec.path}: no such file")
        return _json_lines(path) if path.suffix in _TEXT else _parquet(path)
    return _hugging_face(spec)


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            source = f"{path} row {number}"
            try:
                yield source, json.loads(line)
            except ValueError as error:  # bad JSON or bad UTF-8
                detail = getattr(error, "msg", "not UTF-8")
                raise InputError(f"{source}: malformed JSON ({detail}); one object a line is expected") from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        batches = parquet.ParquetFile(path).iter_batches(batch_size=1024)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            yield f"{path} row {number}", row
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable parquet file ({_first_line(error)})") from None


def _hugging_face(spec: SourceSpec) -> Iterator[tuple[str, Any]]:
    path = Path(spec.path)
    if not path.is_dir() and (path.is_absolute() or spec.path.startswith(".") or len(path.parts) > 2):
        raise InputError(f"{spec.path}: no such file or folder")
    for number, row in enumerate(_load(spec), start=1):
        yield f"{spec.path}[{spec.split}] row {number}", row


def _load(spec: SourceSpec) -> Any:
    import datasets  # imports pandas and more: only for those who need it

    folder = Path(spec.path)
    try:
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(spec.path)[spec.split]
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(spec.path)
        return datasets.load_dataset(spec.path, split=spec.split)
    except Exception as error:  # whatever the library, the network or a data set's files raise
        kind = type(error).__name__
        message = f"cannot be loaded as a data set, split {spec.split!r} ({kind}: {_first_line(error)})"
        raise InputError(f"{spec.path}: {message}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
