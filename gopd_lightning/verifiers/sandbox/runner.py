"""Runs untrusted programs, one job at a time: a script of its own, started by `sandbox`.

Standard library only, and nothing of gopd: it runs as `python -s -S -P runner.py SANDBOX`. Jobs and answers
are JSON frames (four bytes of length, big endian) on stdin and stdout.

Three generations of processes share the work. The runner (process 1 of the sandbox) forks a keeper for every job
and afterwards ends all that is left; it never reads a job, so that nothing of one job can be found by the next.
The keeper reads a job, forks a child for every run of its program, and answers. The child becomes the program
(`child`); it knows its inputs, and expected outputs are never sent here.

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
import struct
import sys
import types
import typing

Job = dict[str, typing.Any]

WARM = (
    "abc ast bisect collections contextlib copy ctypes dataclasses datetime decimal enum fractions functools heapq io"
    " itertools math operator queue random re statistics string textwrap threading time traceback typing"
)
ANSWERED, FAILED, ENDED = 0, 1, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4


def load(name: str) -> types.ModuleType:
    """Load a file that lies beside this one; its folder stays off the path of programs."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(os.path.dirname(__file__), name + ".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(sandbox: str) -> int:
    """Answer jobs until stdin ends.

    Args:
        sandbox: "bubblewrap" or "weak": what this process was started in.

    Returns:
        The exit status: 0 when stdin has ended, 1 when this machine cannot do it or a keeper failed.
    """
    root = os.getcwd()
    keeper = load("keeper").Keeper(load("child").Child(sandbox == "weak", root, load), root, load)
    set_process(PR_SET_DUMPABLE, 0)  # no other process may look into this one, or into those forked from it
    for name in WARM.split():  # imported once, so that no program waits for them
        importlib.import_module(name)
    if fault := trial(keeper, sandbox):
        print(fault, file=sys.stderr)
        return 1
    gc.collect()
    gc.freeze()
    send({"sandbox": sandbox})
    return answer_jobs(keeper) if sandbox != "weak" else answer_jobs_alone(keeper, root)


def answer_jobs(keeper: typing.Any) -> int:
    """Fork a keeper for every job, and clean up after it; the exit status."""
    while True:
        pid = os.fork()
        if pid == 0:
            answer_one(keeper)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        end_all()
        keeper.empty()
        if status != ANSWERED:
            return int(status != ENDED)


def answer_jobs_alone(keeper: typing.Any, root: str) -> int:
    """Answer jobs where nothing outside ends this process and removes its folder; the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    set_process(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        return answer_jobs(keeper)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)  # a keeper, with which its program dies
        end_all()
        shutil.rmtree(root, ignore_errors=True)


def trial(keeper: typing.Any, sandbox: str) -> str | None:
    """Run a program that does nothing; say why that does not work."""
    if keeper.child.code is None and sandbox != "weak":
        return "the kernel filters no system calls"
    nothing = {"program": "", "fn_name": None, "inputs": [""], "cpu_seconds": 9, "wall_seconds": 30, "memory_mb": 512}
    error = keeper.run_job(nothing)["error"]
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


def answer_one(keeper: typing.Any) -> typing.NoReturn:
    """Be the keeper of one job."""
    code = FAILED
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        set_process(PR_SET_PDEATHSIG, signal.SIGKILL)
        job = receive()
        if job is not None:
            send(keeper.run_job(job))
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
