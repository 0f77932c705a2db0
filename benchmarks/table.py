"""The summary as a Markdown table, and its place in a document."""

from collections.abc import Sequence
from typing import Any

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
_WORDS = {True: "yes", False: "**no**", None: ""}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of figures with their goals, and below it why goals are missed.

    Args:
        rows: Of the summary; those that miss their goal have a `reason`.
    """
    lines = ["| case | what | figure | goal | met |", "|---|---|---|---|---|"]
    notes: list[str] = []
    for row in rows:
        met = _WORDS[row["met"]]
        if row["met"] is False:
            note = f"{row['case']}: {row['reason']}"
            notes += [] if note in notes else [note]
            met += f" [{notes.index(note) + 1}]"
        lines.append(f"| {row['case']} | {row['what']} | {figure(row)} | {goal(row)} | {met} |")
    if notes:
        lines += ["", "Goals that are not met:", "", *(f"{i + 1}. {note}" for i, note in enumerate(notes))]
    return "\n".join(lines) + "\n"


def figure(row: dict[str, Any]) -> str:
    """A row's figure as people read it."""
    if row["figure"] is None:
        return ""
    value, unit = row["figure"], row["unit"]
    if unit == "share":
        return f"{100 * value:.3g} %"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def goal(row: dict[str, Any]) -> str:
    """A row's goal as people read it."""
    if row["goal"] is None:
        return ""
    relation, limit = row["goal"].split()
    words = {">=": "at least", "<=": "at most"}[relation]
    return f"{words} {figure({'figure': float(limit), 'unit': row['unit']})}"


def into(document: str, table: str) -> str:
    """The document with what stands between the marks replaced.

    Raises:
        ValueError: The marks are not there, once each and in order.
    """
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise ValueError(f"the document needs one line {BEGIN} and, below it, one line {END}")
    before, _, rest = document.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table}{END}{after}"
