"""Trainers in processes of their own that take turns, a step each, over pipes.

A trainer is slow to load and must not share its memory with another, yet the machine may be busy for one minute and
idle in the next: the processes stay alive, and one of them works at a time.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from memory import status
from models import CACHE

_MARK = "TURN "


class Side:
    """One trainer's process.

    Args:
        name: What the trainer is called in messages; names its log file.
        script: What it runs, beside this file.
        settings: What the script gets as its only argument, as JSON.
    """

    def __init__(self, name: str, script: str, settings: dict[str, Any]) -> None:
        self.name = name
        self.log = CACHE / "logs" / f"{name.replace(' ', '_')}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(Path(__file__).parent / script), json.dumps(settings)]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.answer()  # it stands before its first step

    def step(self, longest: int) -> dict[str, Any]:
        """Let it take one step with responses of at most so many tokens; its figures."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{longest}\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next figures that it gives.

        Raises:
            RuntimeError: It ended instead; the message has the last line of its log.
        """
        assert self._process.stdout is not None
        for figures in read(self._process.stdout):
            return figures
        self._process.wait()
        lines = [line for line in self.log.read_text().splitlines() if line.strip()] or [""]
        raise RuntimeError(f"{self.name} ended with status {self._process.returncode}: {lines[-1]} (see {self.log})")

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.communicate()


def read(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The figures among the lines that a process prints."""
    for line in lines:
        if line.startswith(_MARK):
            yield json.loads(line[len(_MARK) :])


def tell(figures: dict[str, Any]) -> None:
    """In a trainer's process: give the figures of a step."""
    print(_MARK + json.dumps(figures), flush=True)


def wait() -> int:
    """In a trainer's process: wait until it may take a step; the program ends where nobody waits for one.

    Returns:
        Tokens of the longest response in this step.
    """
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    return int(line)


def peak_mb() -> float:
    """In a trainer's process: the most memory that it has had, in MB."""
    return status("VmHWM") / 1024
