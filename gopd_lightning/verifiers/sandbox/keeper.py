"""The keeper of a job: runs its program, once or once a test, and collects what comes out.

Standard library only, and nothing of gopd: the program runner loads this file inside the sandbox.
"""

import contextlib
import os
import resource
import signal
import stat
import sys
import tempfile
import time
import types
import typing
from collections.abc import Callable

Job = dict[str, typing.Any]

ANSWER_BYTES = 64 * 2**20
CPU_OVERRUN = "killed: CPU time above {cpu_seconds:g} s"
WALL_OVERRUN = "killed: ran for {wall_seconds:g} s"
LOOK_SECONDS = 0.005
LARGE_BYTES, DECODE_SECONDS = 2**16, 2
CORES = os.cpu_count() or 1


class Run(typing.NamedTuple):
    """What one child left: its outputs, why it failed (None: it did not) and its processor time in seconds."""

    outputs: list[typing.Any]
    error: str | None
    cpu_seconds: float


class Keeper:
    """Runs the program of a job.

    Args:
        child: Becomes the program (`child.Child`).
        root: The folder that is emptied after every run.
        load: Loads a file that lies beside this one.
    """

    def __init__(self, child: typing.Any, root: str, load: Callable[[str], types.ModuleType]) -> None:
        self.child = child
        self.root = root
        self.report = load("report")
        self.values = load("values")

    def run_job(self, job: Job) -> Job:
        """Run a program on its inputs, up to the first failure."""
        outputs: list[typing.Any] = []
        used, size, error = 0.0, 0, None
        for test in [job["inputs"]] if job["fn_name"] else job["inputs"]:
            run = self._run_once(job, test)
            used += run.cpu_seconds
            error = run.error
            outputs += run.outputs
            size += 0 if job["fn_name"] else sum(map(len, run.outputs))
            if size > ANSWER_BYTES:
                error = f"output above {ANSWER_BYTES // 2**20} MiB"
            if error is not None:
                break
        return {"outputs": outputs, "error": error, "cpu_seconds": used}

    def empty(self) -> None:
        """Remove all that the folder holds, however deep: subfolders move up first, so that paths stay short."""
        number = 0
        while entries := list(os.scandir(self.root)):
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, stat.S_IRWXU)
                for inner in list(os.scandir(entry.path)):
                    number += 1
                    if inner.is_dir(follow_symlinks=False):
                        os.chmod(inner.path, stat.S_IRWXU)  # a folder without rights cannot move
                    os.rename(inner.path, os.path.join(self.root, f".old{os.getpid()}.{number}"))
                os.rmdir(entry.path)

    def _run_once(self, job: Job, test: typing.Any) -> Run:
        """Run the program in a child and collect what it left."""
        folder = os.path.join(self.root, "work")
        os.mkdir(folder, 0o700)
        with blank(self.root) as stdin, blank(self.root) as stdout, blank(self.root) as report:
            if not job["fn_name"]:
                stdin.write(test.encode(errors="replace"))
                stdin.seek(0)
            pid = os.fork()
            if pid == 0:
                self.child.become_program(job, test, folder, (stdin.fileno(), stdout.fileno(), report.fileno()))
            error, used = wait(pid, job)
            self.empty()
            return self._collect(job, (stdout, report), error, used)

    def _collect(
        self, job: Job, files: tuple[typing.IO[bytes], typing.IO[bytes]], error: str | None, used: float
    ) -> Run:
        """What a child left in its stdout and report; what it says of itself counts only if nothing else ended it."""
        report = self.report.read(files[1])
        if error is None or error.startswith("exit status"):
            error = report.error or error
        if job["fn_name"]:
            values = report.values[: len(job["inputs"])]
            if os.fstat(files[1].fileno()).st_size > LARGE_BYTES and not self._cheap(values):
                return Run([], "unreadable value", used)
            missing = self.report.ENDED_EARLY if len(values) < len(job["inputs"]) else None
            return Run(values, error or missing, used)
        files[0].seek(0)
        data = files[0].read(self.report.FILE_BYTES)
        if len(data) == self.report.FILE_BYTES:
            error = f"output above {self.report.FILE_BYTES // 2**20} MiB"
        return Run([] if error else [data.decode(errors="replace")], error, used)

    def _cheap(self, values: list[typing.Any]) -> bool:
        """Whether large values can be decoded in little time: sets of numbers with equal hashes, say, cannot."""
        pid = os.fork()
        if pid == 0:
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (DECODE_SECONDS, DECODE_SECONDS))
                self.values.decode(values)
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0


def blank(root: str) -> typing.IO[bytes]:
    """An empty file without a name: in memory on Linux, where a full folder cannot hurt it."""
    if sys.platform == "linux":
        return open(os.memfd_create("gopd"), "w+b")
    return tempfile.TemporaryFile(dir=root)


def wait(pid: int, job: Job) -> tuple[str | None, float]:
    """Wait for a child, and kill it when it overruns.

    Returns:
        What ended it (None: itself, well) and its processor time in seconds.
    """
    overrun: list[str] = []
    end = time.monotonic() + job["wall_seconds"]

    def look(*_: object) -> None:
        left = job["cpu_seconds"] - processor_seconds(pid), end - time.monotonic()
        if min(left) > 0:  # its threads use up the time together, on all cores at most
            signal.setitimer(signal.ITIMER_REAL, max(LOOK_SECONDS, min(left[0] / CORES, left[1])))
            return
        overrun.append(CPU_OVERRUN if left[0] <= 0 else WALL_OVERRUN)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, look)
    look()
    _, status, usage = os.wait4(pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    used = usage.ru_utime + usage.ru_stime
    return reason(os.waitstatus_to_exitcode(status), used, overrun, job), used


def processor_seconds(pid: int) -> float:
    """Exact processor time of a running process; the kernel's own limit counts in ticks, which load distorts."""
    if sys.platform != "linux":
        return 0.0
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the process's CPU clock (see clock_getcpuclockid)
    except OSError:
        return 0.0  # it has ended


def reason(code: int, used: float, overrun: list[str], job: Job) -> str | None:
    """Why a child failed, in words; None when it did not."""
    if overrun:
        return overrun[0].format(**job)
    if used > job["cpu_seconds"]:
        return CPU_OVERRUN.format(**job)
    if code < 0:
        return f"killed by signal {-code}"
    return f"exit status {code}" if code else None
