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
FILE_BYTES = 16 * 2**20
VALUE_BYTES = 8 * 2**20
ANSWER_BYTES = 64 * 2**20
DEEPEST = 200
CPU_OVERRUN = "killed: CPU time above {cpu_seconds:g} s"
LOOK_SECONDS = 0.005
CORES = os.cpu_count() or 1
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4


class Run(typing.NamedTuple):
    """What one child left: its outputs, why it failed (None: it did not) and its processor time in seconds."""

    outputs: list[typing.Any]
    error: str | None
    cpu_seconds: float


def main(sandbox: str) -> int:
    """Answer jobs until stdin ends.

    Args:
        sandbox: "bubblewrap" or "weak": what this process was started in.

    Returns:
        The exit status: 0 when stdin has ended, 1 when a keeper failed.
    """
    root = os.getcwd()
    child = load("program_child").Child(sandbox == "weak", root, load)
    set_process(PR_SET_DUMPABLE, 0)  # no other process may look into this one, or into those forked from it
    for name in WARM.split():  # imported once, so that no program waits for them
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    send({"sandbox": sandbox})
    while True:
        keeper = os.fork()
        if keeper == 0:
            keep(child, root)
        status = os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
        end_all()
        empty(root)
        if status == ENDED and sandbox == "weak":
            os.rmdir(root)
        if status != ANSWERED:
            return int(status != ENDED)


def load(name: str) -> types.ModuleType:
    """Load a file that lies beside this one; its folder stays off the path of programs."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(os.path.dirname(__file__), name + ".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
                os.rename(inner.path, os.path.join(root, f".old{os.getpid()}.{number}"))
            os.rmdir(entry.path)


def keep(child: typing.Any, root: str) -> typing.NoReturn:
    """Be the keeper of one job."""
    code = FAILED
    try:
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
        return collect_values(job, report, error, used) if job["fn_name"] else collect_text(stdout, report, error, used)


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


def collect_text(stdout: typing.IO[bytes], report: typing.IO[bytes], error: str | None, used: float) -> Run:
    """The stdout of a script, unless it failed; its report holds only an error."""
    stdout.seek(0)
    data = stdout.read(FILE_BYTES + 1)
    lines, _ = read_report(report)
    if len(data) >= FILE_BYTES:
        return Run([], f"output above {FILE_BYTES // 2**20} MiB", used)
    if error is not None:
        told = next((line["error"] for line in lines if isinstance(line.get("error"), str)), None)
        return Run([], words(told) if told and error.startswith("exit status") else error, used)
    return Run([data.decode(errors="replace")], None, used)


def collect_values(job: Job, report: typing.IO[bytes], error: str | None, used: float) -> Run:
    """The values of the calls that were made, and what stopped them."""
    lines, trouble = read_report(report)
    values = [line["value"] for line in lines if "value" in line][: len(job["inputs"])]
    told = next((line["error"] for line in lines if isinstance(line.get("error"), str)), None)
    if len(values) == len(job["inputs"]) and not (error or told or trouble):
        return Run(values, None, used)
    if error is None or error.startswith("exit status"):
        error = words(told) if told else trouble or error or "exited before the last test"
    return Run(values, error, used)


def read_report(report: typing.IO[bytes]) -> tuple[list[Job], str | None]:
    """Lines that a child wrote, as far as they are in order, and what is wrong with the rest."""
    report.seek(0)
    data = report.read(VALUE_BYTES + 1)
    if len(data) > VALUE_BYTES:
        return [], f"output above {VALUE_BYTES // 2**20} MiB"
    lines: list[Job] = []
    for text in data.split(b"\n")[:-1]:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            return lines, "unreadable value"
        if not isinstance(line, dict) or not shallow(line):
            return lines, f"value nested deeper than {DEEPEST}"
        lines.append(line)
    return lines, None


def shallow(value: typing.Any) -> bool:
    """Whether whoever reads a value can walk it by recursion."""
    layer = [value]
    for _ in range(DEEPEST):
        layer = [item for one in layer if isinstance(one, list | dict) for item in inside(one)]
        if not layer:
            return True
    return False


def inside(value: list[typing.Any] | Job) -> typing.Iterable[typing.Any]:
    """The items of a list or dict that may have items of their own."""
    items = value.values() if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, list | dict)]


def words(text: str) -> str:
    """What a program said of itself, on one short line."""
    line = " ".join(text.split())[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
