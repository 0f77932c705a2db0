"""What a program's process does to itself where no sandbox surrounds it: Landlock, an audit hook, fewer rights.

Standard library only, and nothing of gopd: the program runner loads this file. The audit hook sees what Python code
does; native code that gets past it meets Landlock and the filter of system calls, where the machine has them.
"""

import ctypes
import os
import resource
import struct
import sys
import sysconfig
import types
from collections.abc import Callable

NOBODY = 65534
PROCESSES = 256
UNIX = 1
CAPABILITIES = 0x20080522  # version 3 of the capset interface
CLOSED = ("socket.", "subprocess.", "ctypes.", "os.system", "os.exec", "os.spawn", "os.posix", "os.fork", "os.kill")
SIGNALS = ("signal.pthread_kill", "pty.", "syslog.", "webbrowser.", "sqlite3.enable_load_extension")
CHANGES = ("os.re", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.ch", "os.utime", "os.setxattr")
LISTINGS = ("os.listdir", "os.scandir", "os.walk", "glob.")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DEVICES = (os.devnull, "/dev/zero", "/dev/random", "/dev/urandom")
LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/nix/store", "/System/Library")


class Confinement:
    """Prepared once by the runner, put on by every program.

    Args:
        root: The runner's folder; a program may write below it alone.
        landlock: The file `landlock`.
    """

    def __init__(self, root: str, landlock: types.ModuleType) -> None:
        self.root = os.path.realpath(root)
        self.readable = python_paths()
        self.landlock = landlock
        self.rules = landlock.rules([*self.readable, *DEVICES], self.root) if landlock.supported() else None
        self.nobody = os.geteuid() == 0 and readable_to_nobody()
        if self.nobody:
            os.chmod(root, 0o711)

    def own(self, folder: str) -> None:
        """Let a program work in a folder, whoever it will be."""
        os.chmod(folder, 0o777 if self.nobody else 0o700)

    def close_files(self) -> None:
        """Leave only Python's files and the runner's folder (first of all: the rules are an open descriptor)."""
        if self.rules is not None:
            self.landlock.restrict(self.rules)

    def give_up_rights(self) -> None:
        """Be nobody where root can be, and root without capabilities where it cannot."""
        if self.nobody:
            resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
            become_nobody()
        elif os.geteuid() == 0 and sys.platform == "linux":
            header, nothing = struct.pack("Ii", CAPABILITIES, 0), bytes(24)
            ctypes.CDLL(None).capset(header, nothing)

    def watch(self) -> None:
        """Refuse what Python code may not do (last of all: this closes ctypes)."""
        sys.addaudithook(audit_hook(self.root, self.readable))


def python_paths() -> list[str]:
    """The standard library, its extension modules and the system's shared libraries."""
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    inside = [os.path.join(path, name) for path in standard if os.path.isdir(path) for name in os.listdir(path)]
    packages = ("site-packages", "dist-packages")
    return [os.path.realpath(path) for path in (*LIBRARIES, *inside) if not path.endswith(packages)]


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
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def audit_hook(root: str, readable: list[str]) -> Callable[[str, tuple[object, ...]], None]:
    """An audit hook: no sockets, processes or foreign libraries, and no files but one's own and Python's.

    Args:
        root: Folder that may be read and written.
        readable: Files and folders that may be read.
    """
    below = tuple(path + os.sep for path in readable)
    files, realpath = {*readable, *DEVICES}, os.path.realpath

    def own(path: object) -> bool:
        if not isinstance(path, str | bytes):
            return isinstance(path, int) or path is None  # a descriptor that is open already, or the folder itself
        real = realpath(os.fsdecode(path))
        return real in (root, os.devnull) or real.startswith(root + os.sep)

    def visible(path: object) -> bool:
        if own(path):
            return True
        real = realpath(os.fsdecode(path)) if isinstance(path, str | bytes) else ""
        return real in files or real.startswith(below)

    def allowed(event: str, args: tuple[object, ...]) -> bool:
        if event == "open":
            return own(args[0]) if isinstance(args[2], int) and args[2] & WRITING else visible(args[0])
        if event == "socket.__new__":
            return args[1] == UNIX  # a pair of connected ones, which asyncio needs; binding and connecting are closed
        if event.startswith(LISTINGS):
            return visible(args[0])
        if event.startswith(CHANGES):
            return all(own(path) for path in args[:2])
        return not event.startswith((*CLOSED, *SIGNALS))

    def hook(event: str, args: tuple[object, ...]) -> None:
        if not allowed(event, args):
            raise PermissionError(f"{event} is closed to programs, or outside their own folder")

    return hook
