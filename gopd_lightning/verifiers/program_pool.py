"""The trainer's end of the program runners: processes that start when needed, and again when they die."""

import contextlib
import json
import os
import queue
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("program_runner.py")
_START_SECONDS = 60.0
_GRACE_SECONDS = 10.0

Job = dict[str, Any]


class Runner:
    """One runner process. Not thread-safe: a thread uses it alone."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._folder = tempfile.mkdtemp(prefix="gopd-program-")
        os.chmod(self._folder, 0o711)  # its children may give up root and must still reach their own folder
        # A session of its own: Ctrl-C in the terminal is for the trainer, which may still want to grade.
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(_SCRIPT)]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(
            command,
            env={},
            cwd=self._folder,
            stdin=pipe,
            stdout=pipe,
            stderr=nothing,
            bufsize=0,
            start_new_session=True,
        )
        hello = self._receive(time.monotonic() + _START_SECONDS)
        self.isolation = str(hello["isolation"])

    def run(self, job: Job, seconds: float) -> Job:
        """Run one job.

        Args:
            job: See `program_runner`.
            seconds: Longest wait for its result.

        Returns:
            The runner's result.

        Raises:
            OSError: The runner died, does not answer or answers nonsense; it is of no further use.
        """
        body = json.dumps(job).encode()
        self._send(struct.pack(">I", len(body)) + body)
        return self._receive(time.monotonic() + seconds)

    def close(self) -> None:
        """End the process and remove its folder; a forked copy of this object leaves both alone."""
        if os.getpid() != self._owner:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) :]

    def _receive(self, deadline: float) -> Job:
        size = struct.unpack(">I", self._read(4, deadline))[0]
        try:
            message = json.loads(self._read(size, deadline))
        except ValueError as error:
            raise OSError("unreadable frame from the program runner") from error
        return message if isinstance(message, dict) else {}

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        data = bytearray()
        while len(data) < count:
            left = deadline - time.monotonic()
            piece = self._process.stdout.read(count - len(data)) if left > 0 and poll.poll(left * 1000) else b""
            if not piece:
                raise OSError("the program runner died or does not answer")
            data += piece
        return bytes(data)


class RunnerPool:
    """Several runners, each used by one thread at a time."""

    def __init__(self, workers: int) -> None:
        """Start the runners.

        Args:
            workers: Number of runner processes.
        """
        self.owner = os.getpid()
        self._runners: queue.SimpleQueue[Runner | None] = queue.SimpleQueue()
        first = Runner()
        self.isolation = first.isolation
        self._runners.put(first)
        for _ in range(workers - 1):
            self._runners.put(None)  # started by the first job that finds it
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="program-runner")

    def run(self, jobs: Sequence[Job]) -> list[Job]:
        """Run jobs side by side.

        Args:
            jobs: See `program_runner`.

        Returns:
            One result a job, in order; {"error": ...} for a job that took its runner down.
        """
        return list(self._threads.map(self._run_one, jobs))

    def close(self) -> None:
        """End all runners."""
        if os.getpid() != self.owner:
            return
        self._threads.shutdown(wait=True)
        for _ in range(self._workers):
            runner = self._runners.get()
            if runner is not None:
                runner.close()

    def _run_one(self, job: Job) -> Job:
        runner = self._runners.get()
        try:
            if runner is None:
                runner = Runner()
            tests = 1 if job["fn_name"] else len(job["inputs"])
            return runner.run(job, tests * (job["wall_seconds"] + _GRACE_SECONDS))
        except OSError as error:
            if runner is not None:
                runner.close()
            runner = None
            return {"error": str(error)}
        finally:
            self._runners.put(runner)
