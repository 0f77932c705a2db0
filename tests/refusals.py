"""Helpers of the tests of bad input: parts of a config, and the one line that a refusal must be."""

import json
from pathlib import Path
from typing import Any

from tiny_command import Outcome


def one_line(found: Outcome, code: int = 2) -> str:
    """The only line of standard error."""
    assert found.code == code, found
    assert len(found.errors) == 1, found.errors
    assert found.errors[0].startswith("gopd: ")
    assert len(found.errors[0]) < 400
    assert found.out == ""
    return found.errors[0]


def model(content: dict[str, Any]) -> dict[str, Any]:
    return content["model"]["init_args"]


def data(content: dict[str, Any]) -> dict[str, Any]:
    return content["data"]["init_args"]


def callbacks(content: dict[str, Any]) -> list[dict[str, Any]]:
    return content["trainer"]["callbacks"]


def rows(content: dict[str, Any], file: Path, *lines: str) -> None:
    """Train on a file with these lines, and one good row before them."""
    good = json.dumps({"prompt": "Q1+1=", "domain": "math", "answer": "2"})
    file.write_text("\n".join([good, *lines]) + "\n")
    data(content)["train"] = [{"path": str(file)}]
