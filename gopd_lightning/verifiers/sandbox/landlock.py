"""A file system border without namespaces: the kernel's Landlock, for the weak sandbox.

Standard library only, and nothing of gopd: the program runner loads this file. Linux 5.13 or newer; elsewhere
`supported` says no.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Sequence

# The calls' numbers are the same on every architecture.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION, _BENEATH = 1, 1
_EXECUTE, _WRITE, _READ_FILE, _READ_FOLDER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_READ = _READ_FILE | _READ_FOLDER
_FILES_ONLY = _EXECUTE | _WRITE | _READ_FILE | _TRUNCATE  # what a rule about a file may name
_EVERYTHING = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # by first version that has it
_PR_SET_NO_NEW_PRIVS = 38


def supported() -> bool:
    """Whether this kernel has Landlock, switched on."""
    return _version() >= 1


def rules(readable: Sequence[str], own: str) -> int:
    """Make the rules, for any number of processes.

    Args:
        readable: Files and folders that stay readable; those that do not exist are passed over.
        own: The folder in which a process may do as it likes.

    Returns:
        An open descriptor for `restrict`.

    Raises:
        OSError: The kernel refuses.
    """
    handled = max(bits for since, bits in _EVERYTHING.items() if since <= _version())
    made = _call(_CREATE, struct.pack("Q", handled), 8, 0)
    for path in filter(os.path.exists, readable):
        writable = path == os.devnull
        _allow(made, path, _READ | (_WRITE if writable else 0))
    _allow(made, own, handled & ~_EXECUTE)
    return made


def restrict(made: int) -> None:
    """Close the file system to this process, for good.

    Args:
        made: What `rules` gave.

    Raises:
        OSError: The kernel refuses.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call(_RESTRICT, made, 0)


def _version() -> int:
    if sys.platform != "linux":
        return 0
    try:
        return _call(_CREATE, None, 0, _VERSION)
    except OSError:
        return 0


def _allow(rules: int, path: str, access: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = access if os.path.isdir(path) else access & _FILES_ONLY
        _call(_ADD, rules, _BENEATH, struct.pack("=Qi", allowed, folder), 0)
    finally:
        os.close(folder)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    wide = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *wide))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
