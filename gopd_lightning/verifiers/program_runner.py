"""Runs untrusted programs, one job at a time: a script of its own, started by `sandbox`.

Standard library only, and nothing of gopd: it runs as `python -s -S -P program_runner.py SANDBOX`. Jobs and answers
are JSON frames (four bytes of length, big endian) on stdin and stdout.

Three generations of processes share the work. The runner (process 1 of the sandbox) forks a keeper for every job
and afterwards ends all that is left; it never reads a job, so that nothing of one job can be found by the next.
The keeper reads a job, forks a child for every run of its program, and answers. The child becomes the program
(`program_child`); it knows its inputs, and expected outputs are never sent here.

A job is {"program", "fn_name" or null, "inputs", "cpu_seconds", "wall_seconds", "memory_mb"}. With fn_name each
input is a list of encoded call arguments, and one child makes all the calls; without it each is the text of stdin,
and every one gets its own child. Limits hold for one child. An answer is {"outputs", "error", "cpu_seconds"}: encoded
values or the texts of stdout up to the first failure, and why it failed.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import shutil
import signal
import stat
import struct
import sys
import tempfile
import time
import types
import typing

Job = dict[str, typing.Any]

WARM = (
    "abc ast bisect collections contextlib copy ctypes dataclasses datetime decimal enum fractions functools heapq io"
    " itertools math operator queue random re statistics string textwrap threading time traceback typing"
)
ANSWERED, FAILED, ENDED = 0, 1, 2
ANSWER_BYTES = 64 * 2**20
CPU_OVERRUN = "killed: CPU time above {cpu_seconds:g} s"
LOOK_SECONDS = 0.005
CORES = os.cpu_count() or 1
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4


class Run(typing.NamedTuple):
    """What one child left: its outputs, why it failed (None: it did not) and its processor time in seconds."""

    outputs: list[typing.Any]
    error: str | None
    cpu_seconds: float


def load(name: str) -> types.ModuleType:
    """Load a file that lies beside this one; its folder stays off the path of programs."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(os.path.dirname(__file__), name + ".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REPORT = load("program_report")


def main(sandbox: str) -> int:
    """Answer jobs until stdin ends.

    Args:
        sandbox: "bubblewrap" or "weak": what this process was started in.

    Returns:
        The exit status: 0 when stdin has ended, 1 when this machine cannot do it or a keeper failed.
    """
    root = os.getcwd()
    child = load("program_child").Child(sandbox == "weak", root, load)
    set_process(PR_SET_DUMPABLE, 0)  # no other process may look into this one, or into those forked from it
    for name in WARM.split():  # imported once, so that no program waits for them
        importlib.import_module(name)
    if fault := trial(child, root, sandbox):
        print(fault, file=sys.stderr)
        return 1
    gc.collect()
    gc.freeze()
    send({"sandbox": sandbox})
    return answer_jobs(child, root) if sandbox != "weak" else answer_jobs_alone(child, root)


def answer_jobs(child: typing.Any, root: str) -> int:
    """Fork a keeper for every job, and clean up after it; the exit status."""
    while True:
        keeper = os.fork()
        if keeper == 0:
            keep(child, root)
        status = os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
        end_all()
        empty(root)
        if status != ANSWERED:
            return int(status != ENDED)


def answer_jobs_alone(child: typing.Any, root: str) -> int:
    """Answer jobs where nothing outside ends this process and removes its folder; the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    set_process(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        return answer_jobs(child, root)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)  # a keeper, with which its program dies
        end_all()
        shutil.rmtree(root, ignore_errors=True)


def trial(child: typing.Any, root: str, sandbox: str) -> str | None:
    """Run a program that does nothing; say why that does not work."""
    if child.code is None and sandbox != "weak":
        return "the kernel filters no system calls"
    nothing = {"program": "", "fn_name": None, "inputs": [""], "cpu_seconds": 9, "wall_seconds": 30, "memory_mb": 512}
    error = run_job(child, nothing, root)["error"]
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return f"an empty program fails: {error}" if error else None


def set_process(option: int, value: int) -> None:
    """Set an option of this process where there is prctl (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_all() -> None:
    """As process 1, kill whatever is left."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        if os.getpid() == 1:
            os.kill(-1, signal.SIGKILL)
        while os.waitpid(-1, 0):
            pass


def empty(root: str) -> None:
    """Remove all that a folder holds, however deep: subfolders move up before they go, so that paths stay short."""
    number = 0
    while entries := list(os.scandir(root)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, stat.S_IRWXU)
            for inner in list(os.scandir(entry.path)):
                number += 1
                if inner.is_dir(follow_symlinks=False):
                    os.chmod(inner.path, stat.S_IRWXU)  # a folder without rights cannot move
                os.rename(inner.path, os.path.join(root, f".old{os.getpid()}.{number}"))
            os.rmdir(entry.path)


def keep(child: typing.Any, root: str) -> typing.NoReturn:
    """Be the keeper of one job."""
    code = FAILED
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        set_process(PR_SET_PDEATHSIG, signal.SIGKILL)
        job = receive()
        if job is not None:
            send(run_job(child, job, root))
        code = ENDED if job is None else ANSWERED
    finally:
        os._exit(code)


def send(message: Job) -> None:
    """Write one frame to stdout."""
    body = json.dumps(message).encode()
    view = memoryview(struct.pack(">I", len(body)) + body)
    while view:
        view = view[os.write(1, view) :]


def receive() -> Job | None:
    """Read one frame from stdin; None at its end."""
    head = read_exactly(4)
    return json.loads(read_exactly(struct.unpack(">I", head)[0])) if len(head) == 4 else None


def read_exactly(count: int) -> bytes:
    """Read so many bytes of stdin, fewer only at its end."""
    data = bytearray()
    while len(data) < count and (piece := os.read(0, min(count - len(data), 2**20))):
        data += piece
    return bytes(data)


def run_job(child: typing.Any, job: Job, root: str) -> Job:
    """Run a program on its inputs, up to the first failure."""
    outputs: list[typing.Any] = []
    used, size, error = 0.0, 0, None
    for test in [job["inputs"]] if job["fn_name"] else job["inputs"]:
        run = run_once(child, job, test, root)
        used += run.cpu_seconds
        error = run.error
        outputs += run.outputs
        size += 0 if job["fn_name"] else sum(map(len, run.outputs))
        if size > ANSWER_BYTES:
            error = f"output above {ANSWER_BYTES // 2**20} MiB"
        if error is not None:
            break
    return {"outputs": outputs, "error": error, "cpu_seconds": used}


def run_once(child: typing.Any, job: Job, test: typing.Any, root: str) -> Run:
    """Run the program in a child and collect what it left."""
    folder = os.path.join(root, "work")
    os.mkdir(folder, 0o700)
    with blank(root) as stdin, blank(root) as stdout, blank(root) as report:
        if not job["fn_name"]:
            stdin.write(test.encode(errors="replace"))
            stdin.seek(0)
        pid = os.fork()
        if pid == 0:
            child.become_program(job, test, folder, (stdin.fileno(), stdout.fileno(), report.fileno()))
        error, used = wait(pid, job)
        empty(root)
        return collect(job, (stdout, report), error, used)


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
        overrun.append(CPU_OVERRUN if left[0] <= 0 else "killed: ran for {wall_seconds:g} s")
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


def collect(job: Job, files: tuple[typing.IO[bytes], typing.IO[bytes]], error: str | None, used: float) -> Run:
    """What a child left in its stdout and report; what it says of itself counts only if nothing else ended it."""
    report = REPORT.read(files[1])
    if error is None or error.startswith("exit status"):
        error = report.error or error
    if job["fn_name"]:
        values = report.values[: len(job["inputs"])]
        missing = REPORT.ENDED_EARLY if len(values) < len(job["inputs"]) else None
        return Run(values, error or missing, used)
    files[0].seek(0)
    data = files[0].read(REPORT.FILE_BYTES)
    if len(data) == REPORT.FILE_BYTES:
        error = f"output above {REPORT.FILE_BYTES // 2**20} MiB"
    return Run([] if error else [data.decode(errors="replace")], error, used)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
