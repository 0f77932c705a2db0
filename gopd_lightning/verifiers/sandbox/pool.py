"""The sandbox that programs of a model run in: bubblewrap, or what the machine allows instead.

Under bubblewrap a worker's processes have namespaces of their own for users, processes, network, mounts, IPC and host
name: they see a read-only Python, an empty /tmp of limited size, no other file, no other process, no network.
"""

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from gopd_lightning.errors import InputError
from gopd_lightning.verifiers.sandbox import filter as system_calls
from gopd_lightning.verifiers.sandbox import landlock
from gopd_lightning.verifiers.worker import START_SECONDS, Worker, WorkerPool

BUBBLEWRAP, WEAK = "bubblewrap", "weak"

_HERE = Path(__file__).parent
_RUNNER = "runner.py"
_PARTS = ("keeper", "child", "report", "values", "filter")
_SCRIPTS = (_RUNNER, *(f"{part}.py" for part in _PARTS))
_INSIDE = "/sandbox"
_TMP_BYTES = 64 * 2**20
_NOBODY = "65534"
_PYTHON_OPTIONS = ("-s", "-S", "-P", "-B", "-X", "utf8")
# Sets have the same order in every worker; one malloc arena, because each reserves much of a program's address space.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1"}
_NAMESPACES = ("--unshare-all", "--unshare-user", "--cap-drop", "ALL")
_IDENTITY = ("--uid", _NOBODY, "--gid", _NOBODY, "--hostname", "sandbox", "--clearenv")
_LIFE = ("--as-pid-1", "--die-with-parent")


def program_pool(workers: int, allow_weak: bool) -> WorkerPool:
    """Runners of untrusted programs (see `runner` for what they are asked and answer).

    Args:
        workers: Programs that run side by side.
        allow_weak: Go on without bubblewrap where it does not work.

    Returns:
        A pool whose `hello()["sandbox"]` is "bubblewrap" or "weak"; its workers start with the first job.

    Raises:
        InputError: Only the weak sandbox is possible here, and it is not allowed.
    """
    refusal = bubblewrap_refusal()
    if refusal and not allow_weak:
        raise InputError(
            f"programs need a sandbox, and bubblewrap does not work here ({refusal}); install or permit it,"
            " or set allow_weak_sandbox: true to run them with less protection"
        )
    return WorkerPool(_start_weak if refusal else _start_bubblewrap, workers)


def describe(sandbox: str) -> str:
    """What keeps programs in, as a line for the start of a run.

    Args:
        sandbox: What a worker said in its hello.
    """
    if sandbox == BUBBLEWRAP:
        return "programs run under bubblewrap: no network, no files but a read-only Python, no other processes"
    flaws = ["see which files and processes exist", "fill the disk in the time they have"]
    if not landlock.supported():
        flaws.append("read and change files by native code")
    if not system_calls.supported():
        flaws.append("start processes and connections by native code")
    return f"programs run in the WEAK sandbox (bubblewrap: {bubblewrap_refusal()}); they may {', '.join(flaws)}"


def bubblewrap_refusal() -> str | None:
    """Why bubblewrap does not work on this machine, in one line; None when it does (tried once a process)."""
    return _trial()[1]


@functools.cache
def _trial() -> tuple[bool, str | None]:
    """Whether bubblewrap can also close user namespaces for good, and why it does not work at all."""
    if shutil.which("bwrap") is None:
        return False, "bwrap is not installed"
    refusals = []
    for closed in (True, False):  # containers refuse this; the filter of system calls keeps them closed as well
        refusals.append(_refusal(_command(closed)))
        if refusals[-1] is None:
            return closed, None
    return False, refusals[-1]


def _refusal(command: list[str]) -> str | None:
    try:
        trial = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=START_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return " ".join(str(error).split())
    if trial.returncode == 0 and BUBBLEWRAP.encode() in trial.stdout:
        return None
    lines = trial.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"its exit status is {trial.returncode}"


def _command(closed: bool) -> list[str]:
    """The command that starts a runner as process 1 of its own little world."""
    binds = [argument for path in _readable() for argument in _bind(path)]
    for name in _SCRIPTS:
        binds += ["--ro-bind", str(_HERE / name), f"{_INSIDE}/{name}"]
    for path in _packages():
        binds += ["--tmpfs", path, "--remount-ro", path]
    for device in ("null", "zero", "random", "urandom"):
        binds += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    binds += ["--size", str(_TMP_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
    variables = [argument for pair in _ENVIRONMENT.items() for argument in ("--setenv", *pair)]
    python = [_python(), *_PYTHON_OPTIONS, f"{_INSIDE}/{_RUNNER}", BUBBLEWRAP]
    bwrap = [shutil.which("bwrap") or "bwrap", *_NAMESPACES, *(["--disable-userns"] if closed else [])]
    return [*bwrap, *_IDENTITY, *_LIFE, *variables, *binds, *python]


def _start_bubblewrap() -> Worker:
    return Worker(lambda _: _command(_trial()[0]), _ENVIRONMENT, own_folder=False)


def _start_weak() -> Worker:
    command = [_python(), *_PYTHON_OPTIONS, str(_HERE / _RUNNER), WEAK]
    return Worker(lambda _: command, _ENVIRONMENT)


def _python() -> str:
    """The interpreter below any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _readable() -> list[str]:
    """What a program may read: the interpreter, its library folder and the system's shared libraries."""
    base = {"installed_base": sys.base_prefix, "platbase": sys.base_exec_prefix}  # not those of a virtual environment
    standard = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    # A Python with a prefix of its own keeps its shared libraries beside the standard library.
    own = [path if path.startswith("/usr/lib") else os.path.dirname(path) for path in standard]
    paths = [*_system_libraries(), *map(os.path.realpath, own), _python()]
    return list(dict.fromkeys(path for path in paths if os.path.lexists(path)))


def _system_libraries() -> list[str]:
    """Folders of the loader and the C libraries, no wider than the distribution's layout allows."""
    architecture = str(sysconfig.get_config_var("MULTIARCH") or "")
    found = ["/usr/lib64", "/lib64", "/etc/ld.so.cache", "/nix/store"]
    for root in ("/usr/lib", "/lib"):
        inner = os.path.join(root, architecture)
        narrow = architecture and os.path.isdir(inner) and not os.path.islink(root)
        found += [inner, *map(str, Path(root).glob("ld-linux*"))] if narrow else [root]
    return found


def _bind(path: str) -> Sequence[str]:
    if os.path.islink(path):
        return "--symlink", os.readlink(path), path
    return "--ro-bind", path, path


def _packages() -> list[str]:
    """Folders of installed packages below what is readable: programs get the standard library alone."""
    roots = [path for path in _readable() if os.path.isdir(path) and not os.path.islink(path)]
    names = ("site-packages", "dist-packages", "python*/site-packages", "python*/dist-packages")
    found = {str(path) for root in roots for name in names for path in Path(root).glob(name)}
    return sorted(path for path in found if os.path.isdir(path) and not os.path.islink(path))
