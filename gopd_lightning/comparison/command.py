"""The verb: read the runs, compare, print, and leave Markdown and a picture."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gopd_lightning.comparison.pairing import pair
from gopd_lightning.comparison.picture import draw
from gopd_lightning.comparison.report import markdown, table
from gopd_lightning.comparison.runs import read_runs
from gopd_lightning.comparison.statistics import SetComparison, compare
from gopd_lightning.errors import InputError

WIDTH = 100  # of the table where there is no terminal to ask


def compare_runs(runs: Sequence[str], out: str = "comparison", level: float = 0.95) -> None:
    """Compare evaluations problem by problem: a table, Markdown and a picture.

    Args:
        runs: Folders that `gopd test` wrote, each with a `summary.json`; the others are compared with the first.
        out: Folder for `comparison.md` and `comparison.png`; files of these names there are replaced.
        level: Share of data sets whose interval is to hold the true figure.

    Raises:
        InputError: Fewer than two runs, a broken one, or runs that have nothing in common.
    """
    if len(runs) < 2:
        raise InputError("compare needs two runs or more, as in: gopd compare RUN_A RUN_B")
    if not 0 < level < 1:
        raise InputError(f"--level {level:g} is out of range: expected a share between 0 and 1, such as 0.95")
    folder = _folder(out)
    found = read_runs(runs)
    sets, warnings = pair(found)
    comparisons = compare(sets, level)
    names = [run.name for run in found]
    text = markdown(comparisons, [(run.name, str(run.folder)) for run in found], level, warnings)
    _write(folder, text, comparisons, names, level)
    for warning in warnings:
        print(f"gopd: {warning}", file=sys.stderr)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table(comparisons, names, level))
    console.print(Text(f"comparison.md and comparison.png: {folder}"), soft_wrap=True)


def _folder(out: str) -> Path:
    """The output folder; its parents are made with it."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be a folder: {error.strerror}; name another one") from error
    return folder


def _write(folder: Path, text: str, comparisons: Sequence[SetComparison], names: Sequence[str], level: float) -> None:
    """Both files, each whole or not at all, and neither unless both could be made."""
    new = {name: folder / f".{name}.{os.getpid()}" for name in ("comparison.md", "comparison.png")}
    try:
        new["comparison.md"].write_text(text, encoding="utf-8")
        draw(comparisons, names, level, new["comparison.png"])
        for name, temporary in new.items():
            os.replace(temporary, folder / name)
    finally:
        for temporary in new.values():
            with suppress(FileNotFoundError):
                temporary.unlink()
