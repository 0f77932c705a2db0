"""Evaluation sets by name: where their rows are, how they are read, and what the model is asked.

The table is `sets.yaml`. A row of any of them becomes {id, prompt, domain, answer}, which is what every other file
of prompts holds too.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from gopd_lightning.errors import InputError

_IDS = ("id", "problem_idx", "task_id", "question_id")
_EVALPLUS = ("entry_point", "prompt", "canonical_solution", "base_input", "plus_input", "atol")
_EVALPLUS_MORE = ("assertion", "contract", "task_id")
_HUMAN_EVAL = ("entry_point", "prompt", "canonical_solution", "test")
_LIVECODEBENCH = ("question_content", "starter_code", "public_test_cases", "private_test_cases", "metadata")


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """An evaluation set.

    Attributes:
        name: Its name.
        kind: How its rows are read: math, human_eval, evalplus or livecodebench.
        hub: Hub id, or hf:// address of a JSONL file there; None when it is not there.
        split: Split of the hub id.
        package: Module and variable that hold the path of its file; None when no package ships it.
        download: What to download where neither hub nor package has it.
    """

    name: str
    kind: str
    hub: str | None = None
    split: str = "test"
    package: str | None = None
    download: str = ""

    @property
    def domain(self) -> str:
        """The domain of its rows: math or code."""
        return "math" if self.kind == "math" else "code"

    def locate(self, folder: str | None) -> str:
        """The file or hub id that holds the rows.

        Args:
            folder: Where to look first, for `<name>.jsonl` or `<name>.jsonl.gz`.

        Raises:
            InputError: It is nowhere.
        """
        for suffix in (".jsonl", ".jsonl.gz"):
            if folder is not None and (Path(folder) / (self.name + suffix)).is_file():
                return str(Path(folder) / (self.name + suffix))
        if self.package is not None:
            module, _, variable = self.package.rpartition(".")
            return str(getattr(import_module(module), variable))
        if folder is not None or self.hub is None:
            what = self.download or f"its rows ({self.hub})"
            where = f"in data.sets_folder ({folder})" if folder else "and data.sets_folder is not set"
            hint = f"put {what} there under that name (.gz as it comes), or give the source a `path`"
            raise InputError(f"set {self.name}: no {self.name}.jsonl {where}; {hint}")
        return self.hub

    def read(self, row: Any, template: str | None, source: str) -> dict[str, Any]:
        """One row as {id, prompt, answer}; the prompt is text.

        Args:
            row: The row as its file gives it.
            template: What the model is asked; None takes the set's own.
            source: File and row, for messages.

        Raises:
            InputError: A field is missing.
        """
        if not isinstance(row, Mapping):
            raise InputError(f"{source}: expected an object, found {type(row).__name__}")
        problem, starter, answer = _KINDS[self.kind](row, source)
        number = next((row[key] for key in _IDS if row.get(key) is not None), None)
        text = template or _table()["prompts"][self.kind]
        text = text.replace("{starter_code}", _starter(starter)).replace("{problem}", problem)
        return {"id": number, "prompt": text, "answer": answer}


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("sets.yaml").read_text(encoding="utf-8"))
    return table


def eval_set(name: str) -> EvalSet:
    """An evaluation set by its name.

    Raises:
        InputError: There is none of this name.
    """
    sets = _table()["sets"]
    if name not in sets:
        raise InputError(f"unknown evaluation set {name!r}; known: {', '.join(sets)}")
    return EvalSet(name=name, **sets[name])


def _starter(code: str) -> str:
    key = "starter_code" if code.strip() else "no_starter_code"
    return str(_table()[key]).replace("{starter_code}", code.strip("\n"))


def _need(row: Mapping[str, Any], keys: tuple[str, ...], source: str) -> None:
    missing = [key for key in keys if row.get(key) is None]
    if missing:
        raise InputError(f"{source}: `{missing[0]}` is missing; is this the right file for the set?")


def _math(row: Mapping[str, Any], source: str) -> tuple[str, str, str]:
    _need(row, ("problem", "answer"), source)
    return str(row["problem"]), "", str(row["answer"])


def _human_eval(row: Mapping[str, Any], source: str) -> tuple[str, str, str]:
    _need(row, _HUMAN_EVAL, source)
    return str(row["prompt"]).strip("\n"), "", json.dumps({key: row[key] for key in _HUMAN_EVAL})


def _evalplus(row: Mapping[str, Any], source: str) -> tuple[str, str, str]:
    _need(row, _EVALPLUS, source)
    kept = {key: row[key] for key in (*_EVALPLUS, *_EVALPLUS_MORE) if key in row}
    return str(row["prompt"]).strip(), "", json.dumps(kept)


def _livecodebench(row: Mapping[str, Any], source: str) -> tuple[str, str, str]:
    from gopd_lightning.verifiers.programs.formats import livecodebench_answer

    _need(row, _LIVECODEBENCH, source)
    try:
        answer = livecodebench_answer(row)
    except ValueError as error:
        raise InputError(f"{source}: its tests cannot be read ({error}); mend or drop the row") from error
    return str(row["question_content"]), str(row["starter_code"]), answer


_KINDS: dict[str, Callable[[Mapping[str, Any], str], tuple[str, str, str]]] = {
    "math": _math,
    "human_eval": _human_eval,
    "evalplus": _evalplus,
    "livecodebench": _livecodebench,
}
