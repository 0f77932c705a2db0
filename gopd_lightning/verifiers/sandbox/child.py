"""The process that becomes an untrusted program.

Standard library only, and nothing of gopd: the program runner loads this file inside the sandbox. What a program does
to this code after it has started is its own loss: expected outputs are not here, and the keeper decides what counts.
"""

import atexit
import builtins
import contextlib
import ctypes
import io
import math
import os
import platform
import random
import resource
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable

Job = dict[str, typing.Any]

STACK_BYTES = 64 * 2**20
OPEN_FILES = 64
THREADS = 4096  # the kernel counts other processes of the user too, and none at all for root
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4


class Child:
    """Turns a forked process into a program.

    Args:
        weak: No sandbox surrounds it: it must confine itself.
        root: The runner's folder.
        load: Loads a file that lies beside this one.
    """

    def __init__(self, weak: bool, root: str, load: Callable[[str], types.ModuleType]) -> None:
        self.values = load("values")
        self.report = load("report")
        self.filter = load("filter")
        self.code = self.filter.program_filter(platform.machine()) if self.filter.supported() else None
        self.libc = ctypes.CDLL(None)
        self.confinement = load("weak").Confinement(root, load("landlock")) if weak else None

    def become_program(self, job: Job, test: typing.Any, folder: str, files: tuple[int, int, int]) -> typing.NoReturn:
        """Be the program; never returns.

        Args:
            job: See `runner`.
            test: All calls of a function, or the text of stdin.
            folder: Its working folder.
            files: Descriptors of its stdin, stdout and report.
        """
        code = 1
        try:  # whatever a program raises is its own failure
            self._confine(job, folder, files)
            code = self._run_calls(job, test) if job["fn_name"] else self._run_script(job["program"])
        finally:
            os._exit(code)

    def _confine(self, job: Job, folder: str, files: tuple[int, int, int]) -> None:
        os.setsid()
        os.chdir(folder)
        if self.confinement is not None:
            self.confinement.own(folder)
            self.confinement.close_files()
        set_streams(files, bool(job["fn_name"]))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        limit_resources(job, self.report.FILE_BYTES)
        os.environ.clear()
        sys.argv = ["program.py"]
        sys.path.insert(0, "")
        random.seed(0)  # the same program gets the same verdict
        self._close_doors()

    def _close_doors(self) -> None:
        if self.confinement is not None:
            self.confinement.give_up_rights()
        if sys.platform == "linux":
            self.libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
            self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if self.code is not None:
            self.filter.apply(self.code)
        if self.confinement is not None:
            self.confinement.watch()

    def _run_calls(self, job: Job, calls: list[list[typing.Any]]) -> int:
        """Call the function on every list of encoded arguments, and report every value when it is there."""
        say, described, early = self.report.reporter(), self.report.described, self.report.ENDED_EARLY
        encode, decode = self.values.encode, self.values.decode
        try:
            scope = module("program")
            exec(compile(job["program"], "program.py", "exec"), scope)
            function = find(scope, job["fn_name"])
            for arguments in calls:
                say("value", encode(function(*decode(arguments))))
        except SystemExit:
            say("error", early)
        except BaseException as error:
            say("error", described(error))
        return 0

    def _run_script(self, program: str) -> int:
        """Run the program as a script that reads stdin and writes stdout; its exit status."""
        say, described = self.report.reporter(), self.report.described
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
        code = 0
        try:
            code = run_main(program)
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the end of any script does
            atexit._run_exitfuncs()
            sys.stdout.flush()
        except BaseException as error:
            say("error", described(error))
            code = code or 1
        return code


def set_streams(files: tuple[int, int, int], function: bool) -> None:
    """Leave four descriptors open: stdin, stdout (of scripts), nothing for stderr, and the report."""
    stdin, stdout, report = (os.dup(number) for number in files)
    nothing = os.open(os.devnull, os.O_RDWR)
    order = (nothing, nothing, nothing, report) if function else (stdin, stdout, nothing, report)
    spare = [os.dup2(number, 100 + place) for place, number in enumerate(order)]
    for place, number in enumerate(spare):
        os.dup2(number, place, inheritable=place < 3)
    os.closerange(4, 1024)


def limit_resources(job: Job, file_bytes: int) -> None:
    """Set the limits that the kernel enforces; soft and hard are equal, so that no program can catch the signal.

    On Linux the keeper decides on processor time, and the kernel's limit is for the case that it cannot.
    """
    seconds = math.ceil(job["cpu_seconds"] * (3 if sys.platform == "linux" else 1))
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: int(job["memory_mb"] * 2**20),
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: THREADS,
    }
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(*() if sys.platform == "linux" else (ValueError, OSError)):  # macOS has not all
            resource.setrlimit(name, (value, value))
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_STACK, (stack, hard))


def module(name: str) -> dict[str, typing.Any]:
    """The namespace of a fresh module; `exit` and `quit` stand in for those of the `site` module."""
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    made = types.ModuleType(name)
    sys.modules[name] = made
    return vars(made)


def find(scope: dict[str, typing.Any], name: str) -> Callable[..., typing.Any]:
    """The function of that name, else the method of a class `Solution`."""
    if name in scope:
        return typing.cast(Callable[..., typing.Any], scope[name])
    if "Solution" not in scope:
        raise NameError(f"no function {name!r}")
    return typing.cast(Callable[..., typing.Any], getattr(scope["Solution"](), name))


def run_main(program: str) -> int:
    """Run a script's source; what it gave to `sys.exit`, as an exit status."""
    try:
        exec(compile(program, "program.py", "exec"), module("__main__"))
    except SystemExit as stop:
        if stop.code is None:
            return 0
        return stop.code & 0xFF if isinstance(stop.code, int) else 1
    return 0
