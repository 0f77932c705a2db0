"""Runs every run of a design, two side by side, and goes on where it was stopped."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from study.choices import Choices
from study.commands import Command, Run
from study.design import Design
from study.reading import found, record_file

SIDE_BY_SIDE = 2
PATIENCE = 60.0  # seconds for a stopped fit to save


class Runner:
    """Runs what has no record yet; a run waits for those that it needs.

    Args:
        design: All runs, the first most urgent.
        wanted: Names of the runs to do, with what they need.
    """

    def __init__(self, design: Design, wanted: set[str]) -> None:
        self.failures: dict[str, str] = {}
        self._work = design.mode.work
        self._choices = Choices(design)
        self._all = [run for run in design.runs if run.name in wanted]
        self._done = {run.name for run in self._all if record_file(run, self._work).exists()}
        self._waiting = [run for run in self._all if run.name not in self._done]
        self._changed = threading.Condition()
        self._running: dict[str, subprocess.Popen[bytes] | None] = {}
        self._stopping = False
        self._began = time.time()
        self._planned_done = 0.0
        self._finished_here = 0

    def run(self) -> None:
        """Run everything; returns when nothing is left that could run."""
        print(f"{len(self._done)} of {len(self._all)} runs are there already", flush=True)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        threads = [threading.Thread(target=self._work_off, daemon=True) for _ in range(SIDE_BY_SIDE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # in small waits: a signal is only heard between them
                thread.join(0.5)
        for run in self._waiting:
            self.failures[run.name] = "waits for a run that failed"

    def _work_off(self) -> None:
        while (run := self._next()) is not None:
            began = time.time()
            try:
                self._do(run)
                failure = None
            except Exception as error:  # named at the end; the other runs go on
                failure = f"{error}"
            with self._changed:
                self._finish(run, time.time() - began, failure)
                self._changed.notify_all()

    def _next(self) -> Run | None:
        """The most urgent run that need not wait; None when there is none and there will be none."""
        with self._changed:
            while not self._stopping:
                ready = next((run for run in self._waiting if self._done.issuperset(run.needs)), None)
                if ready is not None:
                    self._waiting.remove(ready)
                    self._running[ready.name] = None
                    return ready
                if not self._running:
                    return None
                self._changed.wait()
        return None

    def _do(self, run: Run) -> None:
        """Run the commands of a run that have no result yet, then write its record."""
        records = [self._one(run, command, i) for i, command in enumerate(run.commands)]
        shutil.rmtree(self._work / run.name / "checkpoints", ignore_errors=True)
        file = record_file(run, self._work)
        part = file.with_name(".record.json.part")
        part.write_text(json.dumps(records, indent=1) + "\n")
        os.replace(part, file)

    def _one(self, run: Run, command: Command, number: int) -> dict[str, object]:
        words = self._choices.resolved(command.words)
        folder = self._work / run.name
        folder.mkdir(parents=True, exist_ok=True)
        seconds_file = folder / f"{number}.seconds"
        before = float(seconds_file.read_text()) if seconds_file.exists() else 0.0
        if found(command) is None:
            status, last, spent = self._process(run, words, folder / f"{number}.log")
            before += spent
            seconds_file.write_text(f"{before:.1f}\n")
            if status or found(command) is None:
                raise RuntimeError(f"{shlex.join(words)} ended with status {status}: {last}")
        return {"command": shlex.join(words), "seconds": before}

    def _process(self, run: Run, words: tuple[str, ...], log: Path) -> tuple[int, str, float]:
        """Run a process to its end; its status, last line, and seconds of processor, whatever else the machine does."""
        program = {"gopd": [sys.executable, "-m", "gopd_lightning"], "python": [sys.executable]}[words[0]]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*program, *words[1:]], stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            self._running[run.name] = process
            if self._stopping:
                process.terminate()
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        lines = log.read_text(errors="replace").strip().splitlines()
        return process.returncode, lines[-1][:300] if lines else "", used.ru_utime + used.ru_stime

    def _finish(self, run: Run, seconds: float, failure: str | None) -> None:
        """Note the end of a run, and say how far the whole is."""
        del self._running[run.name]
        if self._stopping:
            return
        if failure is not None:
            self.failures[run.name] = failure
            print(f"{run.name} FAILED: {failure}", flush=True)
            return
        self._done.add(run.name)
        self._planned_done += run.seconds
        self._finished_here += 1
        left = sum(other.seconds for other in (*self._waiting, *(o for o in self._all if o.name in self._running)))
        pace = (time.time() - self._began) / self._planned_done
        print(
            f"{len(self._done)}/{len(self._all)}  {run.name}  {seconds:.0f} s (planned {run.seconds:.0f}); "
            f"{self._finished_here * 60 / (time.time() - self._began):.1f} runs a minute, "
            f"about {left * pace / 60:.0f} minutes to go",
            flush=True,
        )

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        """Let running fits save, and leave."""
        self._stopping = True
        live = [process for process in self._running.values() if process is not None]
        for process in live:
            process.terminate()
        end = time.time() + PATIENCE
        for process in live:
            try:
                process.wait(max(0.1, end - time.time()))
            except subprocess.TimeoutExpired:
                process.kill()
        print("stopped; the same command goes on from here", flush=True)
        os._exit(130)


def with_needs(design: Design, groups: list[str]) -> set[str]:
    """Names of the runs of some groups and of all that they need; of all runs when no group is named.

    Args:
        design: All runs.
        groups: Names as in the tables, such as `early/exopd-2`.

    Raises:
        SystemExit: An unknown group.
    """
    by_name = {run.name: run for run in design.runs}
    known = {run.group for run in design.runs if run.group}
    unknown = [group for group in groups if group not in known]
    if unknown:
        sys.exit(f"no group {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    open_names = [run.name for run in design.runs if not groups or run.group in groups]
    wanted: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name not in wanted:
            wanted.add(name)
            open_names += by_name[name].needs
    return wanted
