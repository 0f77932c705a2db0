"""Where prompts come from: JSONL, parquet, and Hugging Face data sets, each row with its file and number."""

import gzip
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from gopd_lightning.data.rows import RawRow, parse_row
from gopd_lightning.data.sets import EvalSet, eval_set
from gopd_lightning.errors import InputError

_TEXT = {".jsonl", ".json", ".ndjson", ".gz"}
_FILES = _TEXT | {".parquet"}


@dataclass(kw_only=True)
class SourceSpec:
    """One data set of a split.

    Args:
        path: JSONL (also gzipped) or parquet file, a data set folder, or the id of a data set on the Hugging Face hub.
        set: An evaluation set by name (`aime24`, `mbpp_plus`, ...: see data/sets.yaml), whose rows are read and asked
            in its own way; `path` is then needed only where its rows lie in a place of their own.
        domain: Domain of rows that name none; rows that name another are an error.
        name: What its figures are called; by default the set's name, or the file's without its ending.
        weight: Share of a training step's prompts, relative to the other sources.
        limit: Rows to read at most; None reads all.
        split: Split of a data set folder or hub id.
        template: What the model is asked instead of the set's own text; {problem} and {starter_code} are filled in.
        chat: Ask as a user message through the chat template; False gives a set's prompts as plain text.
        corrections: Right answers by row id, for rows whose answer in the file is broken.
    """

    path: str | None = None
    set: str | None = None
    domain: str | None = None
    name: str | None = None
    weight: float = 1.0
    limit: int | None = None
    split: str = "train"
    template: str | None = None
    chat: bool = True
    corrections: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """The name, or what stands in for it."""
        return self.name or self.set or Path(self.path or "unnamed").stem

    def located(self, folder: str | None, key: str = "a source") -> "SourceSpec":
        """This source with its `path`, split and domain filled in from its evaluation set.

        Args:
            folder: Where files of evaluation sets are looked for first.
            key: Where the YAML names the source, for messages.

        Raises:
            InputError: An unknown set, one that is nowhere, or a source with neither path nor set.
        """
        if self.set is None:
            if self.path is None:
                raise InputError(f"{key} has neither `path` nor `set`; name one of them")
            return self
        found = eval_set(self.set)
        path = self.path or found.locate(folder)
        split = found.split if path == found.hub else self.split
        return replace(self, path=path, split=split, domain=self.domain or found.domain)


def read_rows(spec: SourceSpec) -> Iterator[RawRow]:
    """Read the rows of one source in their order.

    Args:
        spec: What to read; a named set must have been `located`.

    Yields:
        Checked rows; `source` counts rows (lines of text files) from 1.

    Raises:
        InputError: The file is missing, empty or malformed, or a row or a setting cannot be used.
    """
    _check(spec)
    named = eval_set(spec.set) if spec.set else None
    unused = dict(spec.corrections)
    empty = True
    for source, row in islice(_numbered(spec), spec.limit):
        empty = False
        fields = _of_set(named, spec, row, source) if named else row
        parsed = parse_row(fields, spec.domain, source)
        if parsed.id in unused:
            parsed = replace(parsed, answer=unused.pop(parsed.id))
        yield parsed if parsed.id == source.rpartition(" ")[2] else replace(parsed, source=f"{source} (id {parsed.id})")
    if empty:
        raise InputError(f"{spec.path}: the data set is empty")
    if unused and spec.limit is None:
        raise InputError(f"{spec.path}: corrections names the id {next(iter(unused))!r}, which no row has")


def _of_set(named: EvalSet, spec: SourceSpec, row: Any, source: str) -> Mapping[str, Any]:
    fields = named.read(row, spec.template, source)
    if spec.chat:
        fields["prompt"] = [{"role": "user", "content": fields["prompt"]}]
    return fields


def _check(spec: SourceSpec) -> None:
    if not (math.isfinite(spec.weight) and spec.weight > 0):
        raise InputError(f"{spec.path}: weight = {spec.weight} must be above 0; to leave a source out, delete it")
    if spec.limit is not None and spec.limit < 1:
        raise InputError(f"{spec.path}: limit = {spec.limit} must be at least 1")


def _numbered(spec: SourceSpec) -> Iterator[tuple[str, Any]]:
    path = Path(spec.path or "")
    if path.suffix in _FILES and not str(spec.path).startswith("hf://") and not path.is_dir():
        if not path.is_file():
            raise InputError(f"{spec.path}: no such file")
        return _json_lines(path) if path.suffix in _TEXT else _parquet(path)
    return _hugging_face(spec)


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
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
    path = Path(spec.path or "")
    remote = str(spec.path).startswith("hf://")
    if (
        not remote
        and not path.is_dir()
        and (path.is_absolute() or str(spec.path).startswith(".") or len(path.parts) > 2)
    ):
        raise InputError(f"{spec.path}: no such file or folder")
    for number, row in enumerate(_load(spec), start=1):
        yield f"{spec.path}[{spec.split}] row {number}", row


def _load(spec: SourceSpec) -> Any:
    import datasets  # imports pandas and more: only for those who need it

    folder = Path(spec.path or "")
    try:
        if str(spec.path).startswith("hf://"):  # one file of a data set's repository
            return datasets.load_dataset("json", data_files=spec.path, split="train")
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(folder))[spec.split]
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(spec.path, split=spec.split)
    except Exception as error:  # whatever the library, the network or a data set's files raise
        kind = type(error).__name__
        message = f"cannot be loaded as a data set, split {spec.split!r} ({kind}: {_first_line(error)})"
        raise InputError(f"{spec.path}: {message}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
