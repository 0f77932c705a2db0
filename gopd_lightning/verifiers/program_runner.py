"""Runs untrusted programs, one job at a time: a script of its own, started by `program_pool`.

Standard library only, and nothing of gopd: it runs as `python -I -S program_runner.py` with an empty
environment. Jobs and results are JSON frames (four bytes of length, big endian) on stdin and stdout. A job is
{"program", "fn_name" or null, "inputs", "cpu_seconds", "wall_seconds", "memory_mb"}; a result is {"error"}
or {"outputs": [...]}: a JSON text or (without fn_name) a stdout for every test. Expected outputs stay away.
Every program runs in a forked child: own session, resource limits, an empty folder, no network.
"""

import builtins
import contextlib
import ctypes
import gc
import importlib
import io
import json
import math
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import typing
from collections.abc import Callable

Job = dict[str, typing.Any]

CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1
NOBODY = 65534
FILE_BYTES = 16 * 2**20
OPEN_FILES = 64
PROCESSES = 64
CLOSED = ("socket.", "subprocess.", "ctypes.", "os.system", "os.exec", "os.spawn", "os.posix", "os.fork")
SIGNALS = ("os.kill", "signal.pthread_kill")
CHANGES = ("os.re", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.ch", "os.utime")
WARM = "ast bisect collections copy decimal fractions functools heapq itertools operator random re string"


def main() -> None:
    """Answer jobs until stdin ends, then remove the working folder."""
    root = os.getcwd()
    isolation = enter_namespaces()
    drop = os.geteuid() == 0 and readable_to_nobody()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for name in WARM.split():  # imported once, so that no program waits for them
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    send({"isolation": isolation})
    while (job := receive()) is not None:
        send(run_job(job, root, drop))
    shutil.rmtree(root, ignore_errors=True)


def send(message: Job) -> None:
    """Write one frame to stdout."""
    body = json.dumps(message).encode()
    sys.stdout.buffer.write(struct.pack(">I", len(body)) + body)
    sys.stdout.buffer.flush()  # a forked child must not find any of it


def receive() -> Job | None:
    """Read one frame from stdin; None at its end."""
    head = sys.stdin.buffer.read(4)
    return json.loads(sys.stdin.buffer.read(struct.unpack(">I", head)[0])) if len(head) == 4 else None


def enter_namespaces() -> str:
    """Leave the network (and, where allowed, the other processes) behind.

    Returns:
        "network namespace", or "audit hook" where the kernel refuses and only the hook closes the network.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    unshare = getattr(libc, "unshare", None)
    users = (0, CLONE_NEWUSER) if os.geteuid() == 0 else (CLONE_NEWUSER,)
    for processes in (CLONE_NEWPID, 0):
        for user in users:
            if unshare is not None and unshare(user | CLONE_NEWNET | processes) == 0:
                if processes:
                    become_first_process(libc)
                return "network namespace"
    return "audit hook"


def become_first_process(libc: ctypes.CDLL) -> None:
    """Continue as process 1 of the new process namespace: no program sees, or outlives, anything else."""
    child = os.fork()
    if child:
        os.close(0)
        os.close(1)
        os.waitpid(child, 0)
        os._exit(0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def readable_to_nobody() -> bool:
    """Tell whether the standard library can still be imported after giving up root."""
    child = os.fork()
    if child == 0:
        try:
            become_nobody()
            os._exit(0 if os.access(os.__file__, os.R_OK) else 1)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def become_nobody() -> None:
    """Give up root for good."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def run_job(job: Job, root: str, drop: bool) -> Job:
    """Run a program on its tests: all calls of a function in one process, every stdin test in its own."""
    tests = [job["inputs"]] if job["fn_name"] else job["inputs"]
    outputs: list[str] = []
    try:
        for test in tests:
            outputs.append(run_once(job, test, root, drop))
        return {"outputs": json.loads(outputs[0]) if job["fn_name"] else outputs}
    except RuntimeError as error:
        return {"error": str(error)}
    except (ValueError, RecursionError):
        return {"error": "unreadable result"}


def run_once(job: Job, test: typing.Any, root: str, drop: bool) -> str:
    """Run the program in a child and return what it wrote.

    Raises:
        RuntimeError: It did not end by itself and well.
    """
    folder = tempfile.mkdtemp(dir=root)
    os.chmod(folder, 0o777)
    try:
        with tempfile.TemporaryFile(dir=root) as result, tempfile.TemporaryFile(dir=root) as stdin:
            if not job["fn_name"]:
                stdin.write(test.encode())
                stdin.seek(0)
            child = os.fork()
            if child == 0:
                run_child(job, test, folder, (stdin.fileno(), result.fileno()), drop)
            wait(child, job["wall_seconds"])
            result.seek(0)
            return result.read(FILE_BYTES).decode(errors="replace")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait(child: int, wall_seconds: float) -> None:
    """Wait for a child, then end everything that it started.

    Raises:
        RuntimeError: It ran into the limit, or its exit status is not 0.
    """
    deadline = time.monotonic() + wall_seconds
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT  # not reaped yet, so that its group keeps its number
    while (ended := os.waitid(os.P_PID, child, look)) is None and (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)
    status = end_all(child)
    if ended is None:
        raise RuntimeError(f"ran for {wall_seconds} s")
    if status:
        raise RuntimeError(f"exit status {os.waitstatus_to_exitcode(status)}")


def end_all(child: int) -> int:
    """Kill the child's group, and as process 1 whatever left the group; return the child's status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        if os.getpid() == 1 and os.getppid() == 0:
            os.kill(-1, signal.SIGKILL)
            while os.waitpid(-1, 0):
                pass
    return status


def run_child(job: Job, test: typing.Any, folder: str, files: tuple[int, int], drop: bool) -> typing.NoReturn:
    """Become the program; never returns to the runner's own code."""
    code = 1
    try:  # whatever a program raises is its own failure
        confine(job, folder, files, drop)
        code = call_function(job, test) if job["fn_name"] else run_script(job)
    finally:
        os._exit(code)


def confine(job: Job, folder: str, files: tuple[int, int], drop: bool) -> None:
    """Own session, limits, folder, and streams: 0, 1, 2 and, for a function task, 3 for its result."""
    os.setsid()
    os.chdir(folder)
    stdin, result = (os.dup(number) for number in files)
    nothing = os.open(os.devnull, os.O_RDWR)
    for target, origin in ((0, stdin), (1, nothing if job["fn_name"] else result), (2, nothing)):
        os.dup2(origin, target)
    if job["fn_name"]:
        os.dup2(result, 3)
    os.closerange(4 if job["fn_name"] else 3, 1024)
    limit_resources(job, drop)
    os.environ.clear()
    sys.argv = ["program.py"]
    sys.path.insert(0, "")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    sys.addaudithook(guard(os.path.realpath(folder)))


def limit_resources(job: Job, drop: bool) -> None:
    """Set the resource limits and give up root where that is possible."""
    seconds = math.ceil(job["cpu_seconds"])
    limits = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_AS: (job["memory_mb"] * 2**20,) * 2,
        resource.RLIMIT_FSIZE: (FILE_BYTES, FILE_BYTES),
        resource.RLIMIT_NOFILE: (OPEN_FILES, OPEN_FILES),
        resource.RLIMIT_CORE: (0, 0),
    }
    if drop:
        limits[resource.RLIMIT_NPROC] = (PROCESSES, PROCESSES)
    for name, value in limits.items():
        resource.setrlimit(name, value)
    if drop:
        become_nobody()


def guard(folder: str) -> Callable[[str, tuple[typing.Any, ...]], None]:
    """An audit hook: no sockets, processes or foreign libraries, and no writing outside `folder`."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def outside(path: object) -> bool:
        if not isinstance(path, str | bytes):
            return False
        real = os.path.realpath(os.fsdecode(path))
        return real not in (folder, os.devnull) and not real.startswith(folder + os.sep)

    def hook(event: str, args: tuple[typing.Any, ...]) -> None:
        if event == "open":
            if isinstance(args[2], int) and args[2] & writing and outside(args[0]):
                raise PermissionError("a program may write to its own folder only")
        elif event.startswith(CLOSED + SIGNALS):
            raise PermissionError(f"{event} is closed to programs")
        elif event.startswith(CHANGES) and any(outside(path) for path in args[:2]):
            raise PermissionError("a program may change its own folder only")

    return hook


def namespace(name: str) -> dict[str, typing.Any]:
    """A fresh module namespace; `exit` and `quit` stand in for those of the `site` module."""
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    return {"__name__": name, "__builtins__": builtins}


def call_function(job: Job, inputs: list[list[typing.Any]]) -> int:
    """Call the function on every test's arguments; write the values as a JSON list of JSON texts."""
    dumps = json.dumps
    scope = namespace("program")
    exec(compile(job["program"], "program.py", "exec"), scope)
    name = job["fn_name"]
    function = scope[name] if name in scope else getattr(scope["Solution"](), name)
    values = [dumps(function(*arguments)) for arguments in inputs]
    with open(3, "w", encoding="utf-8") as result:
        result.write(dumps(values))
    return 0


def run_script(job: Job) -> int:
    """Run the program as a script that reads stdin and writes stdout; its exit status."""
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    code = 0
    try:
        exec(compile(job["program"], "program.py", "exec"), namespace("__main__"))
    except SystemExit as stop:
        code = 0 if stop.code in (None, 0) else 1
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    main()
