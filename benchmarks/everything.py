"""All cases, one after the other, and what they show: `make bench`, or `make bench CASES="K1 S1"` for some.

Each case is a script of its own in a process of its own; one that fails is named and the others go on. From the
results of all cases, also of those that ran before, this makes `results/summary.json`, a picture a case, and the
table in docs/performance.md.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pictures import draw
from side_by_side import RESULTS, machine
from table import into, markdown

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "performance.md"
REASONS = HERE / "reasons.yaml"
PATIENCE = 3.0  # times the planned minutes, then a case is ended: a busy machine is slow, a hanging one is not


@dataclass(frozen=True)
class Case:
    """A case: its script beside this file, and the minutes that it takes on two cores."""

    name: str
    script: str
    minutes: float

    @property
    def results(self) -> Path:
        """What the script writes."""
        return RESULTS / f"{self.script}.json"


CASES = (
    Case("K1", "head", 9),
    Case("K2", "divergence", 4),
    Case("S1", "scoring", 3),
    Case("R1", "rollout", 7),
    Case("E1", "step", 11.5),
    Case("E2", "whole_run", 4),
    Case("E3", "teachers", 2.5),
    Case("E4", "growth", 3),
    Case("PROG", "programs", 0.5),
)


def chosen(names: list[str]) -> list[Case]:
    """The cases of these names; all when there is none.

    Raises:
        SystemExit: An unknown name.
    """
    known = {case.name: case for case in CASES}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no case {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name] for name in names] or list(CASES)


def run(case: Case, minutes: float) -> str | None:
    """Run one case, its lines passed on.

    Args:
        case: The case.
        minutes: After which it is ended.

    Returns:
        Why it failed; None where it did not.
    """
    began = time.time()
    command = [sys.executable, "-u", str(HERE / f"{case.script}.py")]
    quiet = os.environ | {"TQDM_DISABLE": "1"}  # bars of libraries, a line for each of their steps in a log
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=quiet
    )
    timer = threading.Timer(60 * minutes, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        last = line.strip() or last
        print(f"  {case.name} {clock(time.time() - began)}  {line.rstrip()}", flush=True)
    status = process.wait()
    late = not timer.is_alive()
    timer.cancel()
    return failure(case, status, late, last, began)


def failure(case: Case, status: int, late: bool, last: str, began: float) -> str | None:
    """Why a case that has ended failed, in a line; None where it did not."""
    if late:
        return "took too long and was ended"
    if status:
        return f"ended with status {status}: {last}"
    if not case.results.exists() or case.results.stat().st_mtime < began - 1:
        return f"wrote no {case.results.name}"
    return None


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def run_all(cases: list[Case]) -> dict[str, str]:
    """Run cases and tell how far they are.

    Returns:
        The failures by case name.
    """
    began, failures, done = time.time(), {}, 0.0
    for i, case in enumerate(cases):
        left = sum(other.minutes for other in cases[i:])
        pace = (time.time() - began) / 60 / done if done else 1.0
        print(f"{case.name} ({i + 1} of {len(cases)}) begins; about {left * pace:.0f} minutes to go", flush=True)
        reason = run(case, PATIENCE * case.minutes)
        if reason is not None:
            failures[case.name] = reason
            print(f"{case.name} FAILED: {reason}", flush=True)
        done += case.minutes
    print(f"{len(cases)} cases in {clock(time.time() - began)}, {len(failures)} failed", flush=True)
    return failures


def rows_of(case: Case, failures: dict[str, str], reasons: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """The summary's rows of one case; the reason stands with those that miss their goal.

    Args:
        case: The case.
        failures: Why cases failed in this run.
        reasons: Found reasons by case and row; `*` is for all rows of a case.
    """
    if case.name in failures:
        lost = {"case": case.name, "what": "did not finish", "figure": None, "unit": "", "goal": None, "met": False}
        return [lost | {"reason": failures[case.name]}]
    if not case.results.exists():
        return []
    known = reasons.get(case.name, {})
    rows = json.loads(case.results.read_text()).get("summary", [])
    for row in rows:
        if row["met"] is False:
            row["reason"] = known.get(row["what"], known.get("*", "not known yet"))
    return list(rows)


def put(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.write_text(text)
    os.replace(part, file)


def report(failures: dict[str, str]) -> list[dict[str, Any]]:
    """Summary, pictures and table from the results of all cases that there are; the summary's rows."""
    reasons = yaml.safe_load(REASONS.read_text()) or {}
    rows = [row for case in CASES for row in rows_of(case, failures, reasons)]
    put(RESULTS / "summary.json", json.dumps(rows, indent=1) + "\n")
    for case in CASES:
        if case.results.exists() and case.name not in failures:
            draw(case.name, json.loads(case.results.read_text()), RESULTS / f"{case.script}.png")
    put(DOCUMENT, into(DOCUMENT.read_text(), markdown(rows)))
    return rows


def main() -> None:
    cases = chosen(sys.argv[1:])
    print(json.dumps(machine()), flush=True)
    failures = run_all(cases)
    rows = report(failures)
    print(markdown(rows))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
