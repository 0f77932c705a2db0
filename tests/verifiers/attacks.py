"""What the tables of attacks share: how an attack is written down, launched and checked."""

import json
import os
import re
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gopd_lightning.records import Prompt, Verdict
from gopd_lightning.verifiers import ProgramVerifier
from gopd_lightning.verifiers.sandbox import pool as sandbox

REFUSED = "refused = OSError, RuntimeError, ImportError, ValueError"
SUM = "def f(xs):\n return sum(xs)"


@dataclass(frozen=True)
class Attack:
    """A program and what must come of it.

    Attributes:
        name: For people.
        program: Defines f(xs), which should return the sum; as a script it should print its stdin.
        reason: Regular expression for why it fails; "" where it must pass: it was kept from harm and did its task.
        script: It reads stdin and writes stdout.
        weak: The reason in the weak sandbox, where that is another.
    """

    name: str
    program: str
    reason: str
    script: bool = False
    weak: str | None = None


def harmless(name: str, *attempts: str, setup: str = "", weak: str | None = None) -> Attack:
    """An attack of many attempts, statements of Python: it passes when every one of them raises."""
    lines = [f"def try{place}():\n{textwrap.indent(attempt, '  ')}" for place, attempt in enumerate(attempts)]
    body = "\n".join([setup, "import os, sys, ctypes, signal", REFUSED, *lines])
    calls = "\n".join(
        f" try:\n  try{place}()\n  done.append({attempt!r})\n except refused: pass"
        for place, attempt in enumerate(attempts)
    )
    return Attack(
        name, f"{body}\ndef f(xs):\n done = []\n{calls}\n return sum(xs) if not done else done", "", weak=weak
    )


def task(script: bool = False) -> Prompt:
    """The prompt that attacks pretend to answer."""
    tests = {"fn_name": "f", "inputs": [[[1, 2]], [[5]]], "outputs": [3, 5]}
    if script:
        tests = {"inputs": ["1\n", "2\n"], "outputs": ["1", "2"]}
    return Prompt(uid=0, domain="code", dataset="d", text="", ids=[], answer=json.dumps(tests), source="row 1")


def launch(verifier: ProgramVerifier, attack: Attack) -> Verdict:
    return verifier.verify([task(attack.script)], [attack.program])[0]


def honest_program_passes(verifier: ProgramVerifier) -> bool:
    """Whether a right program that never ran before passes."""
    return verifier.verify([task()], [f"{SUM}  # {time.monotonic_ns()}"])[0].reward == 1.0


def processes_below(pid: int) -> set[int]:
    """All descendants of a process, however many generations down."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, edge = set(), {pid}
    while edge:
        edge = {child for child, parent in parents.items() if parent in edge} - found
        found |= edge
    return found


def check(verifier: ProgramVerifier, attack: Attack, host: Any) -> None:
    """Launch an attack; its verdict must be right, and nothing else may have changed."""
    verdict = launch(verifier, attack)
    weak = verifier.sandbox == "weak" and attack.weak is not None
    reason = attack.weak if weak else attack.reason
    assert verdict.reward == (0.0 if reason else 1.0), verdict
    assert re.search(reason, verdict.reason), verdict
    assert not verdict.crashed
    assert honest_program_passes(verifier)
    assert strays(verifier.known) == 0
    assert host.unharmed()


def strays(known: int) -> int:
    """How many processes there are below this one beyond the known number, once things have settled."""
    deadline = time.monotonic() + 5
    while (extra := len(processes_below(os.getpid())) - known) > 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    return max(extra, 0)


def weak_only(monkeypatch):
    monkeypatch.setattr(sandbox, "bubblewrap_refusal", lambda: "not tried")
