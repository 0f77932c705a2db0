"""The filter of system calls, run by hand for both machines that it is written for."""

import errno
import os
import struct
import subprocess
import sys

import pytest

from gopd_lightning.verifiers.sandbox import filter as system_calls
from gopd_lightning.verifiers.sandbox import landlock

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS, ENOMEM = REFUSE | errno.EPERM, REFUSE | errno.ENOSYS, REFUSE | errno.ENOMEM
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OWN = system_calls._OWN_PID


def answer(machine, number, *arguments, architecture=None):
    """What the filter says of a call: a small interpreter of its five instructions."""
    data = struct.pack(
        "<IIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *arguments, *[0] * (6 - len(arguments))
    )
    steps = list(struct.iter_unpack("HBBI", system_calls.program_filter(machine)))
    place = value = 0
    while True:
        code, yes, no, operand = steps[place]
        place += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            value = struct.unpack_from("<I", data, operand)[0]
            continue
        holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
        place += yes if holds else no


CASES = [  # name, x86_64, aarch64, arguments, answer
    ("read", 0, 63, (), ALLOW),
    ("openat", 257, 56, (), ALLOW),
    ("exit_group", 231, 94, (), ALLOW),
    ("execve", 59, 221, (), EPERM),
    ("execveat", 322, 281, (), EPERM),
    ("socket", 41, 198, (2, 1, 0), EPERM),
    ("connect", 42, 203, (), EPERM),
    ("ptrace", 101, 117, (), EPERM),
    ("mount", 165, 40, (), EPERM),
    ("unshare", 272, 97, (), EPERM),
    ("memfd_create", 319, 279, (), EPERM),
    ("bpf", 321, 280, (), EPERM),
    ("clone, a process", 56, 220, (17,), EPERM),
    ("clone, a thread", 56, 220, (0x3D0F00,), ALLOW),
    ("clone, a thread in a new namespace", 56, 220, (0x3D0F00 | 0x10000000,), EPERM),
    ("clone3", 435, 435, (), ENOSYS),
    ("io_uring_setup", 425, 425, (), ENOSYS),
    ("a call that does not exist yet", 999, 999, (), ENOSYS),
    ("kill, itself", 62, 129, (OWN, 9), ALLOW),
    ("kill, all", 62, 129, (2**64 - 1, 9), EPERM),
    ("kill, the runner", 62, 129, (1, 9), EPERM),
    ("tgkill, the runner", 234, 131, (1, 1, 9), EPERM),
    ("prlimit64, itself", 302, 261, (0,), ALLOW),
    ("prlimit64, the runner", 302, 261, (1,), EPERM),
    ("fcntl, flags", 72, 25, (0, 3), ALLOW),
    ("fcntl, owner", 72, 25, (0, 8, 1), EPERM),
    ("ioctl, is it a terminal", 16, 29, (0, 0x5401), ALLOW),
    ("ioctl, typing for others", 16, 29, (0, 0x5412), REFUSE | errno.ENOTTY),
    ("mmap, memory", 9, 222, (0, 4096, 3, 0x22), ALLOW),
    ("mmap, a stack", 9, 222, (0, 8 * 2**20, 0, 0x20022), ALLOW),
    ("mmap, a stack of 4 GiB and a page", 9, 222, (0, 2**32 + 4096, 0, 0x20022), ALLOW),
    ("mmap, a tiny stack", 9, 222, (0, 32768, 0, 0x20022), ENOMEM),
    ("socketpair, local", 53, 199, (1, 1, 0), ALLOW),
    ("socketpair, other", 53, 199, (30, 1, 0), EPERM),
]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_calls_are_answered_alike_on_both_machines(machine, case):
    _, x86, arm, arguments, expected = case
    assert answer(machine, x86 if machine == "x86_64" else arm, *arguments) == expected


def test_foreign_interfaces_are_closed():
    assert answer("x86_64", 0, architecture=0x40000003) == KILL  # the 32-bit one
    assert answer("x86_64", 0x40000000) == EPERM  # x32


def test_no_number_is_listed_twice():
    for column in (0, 1):
        conditional = [numbers[column] for numbers in system_calls._NUMBERS.values()]
        listed = [*system_calls.allowed(column), *conditional]
        assert len(listed) == len(set(listed)) > 90


@pytest.mark.skipif(not system_calls.supported(), reason="no filter on this machine")
def test_filter_binds_the_process_that_applies_it():
    code = (
        "import os, platform, socket\nfrom gopd_lightning.verifiers.sandbox import filter as p\n"
        "p.apply(p.program_filter(platform.machine()))\n"
        "for act in (socket.socket, os.fork, lambda: os.kill(1, 0)):\n"
        " try: act(); print('reached')\n except PermissionError: print('refused')\nos.kill(os.getpid(), 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused"] * 3


@pytest.mark.skipif(not landlock.supported(), reason="no Landlock on this machine")
def test_landlock_leaves_what_the_rules_name(tmp_path):
    names = ("readable", "own", "closed")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    readable, own, closed = (str(tmp_path / name) for name in names)
    code = (
        "import os\nfrom gopd_lightning.verifiers.sandbox import landlock as p\n"
        f"p.restrict(p.rules([{readable!r}, '/no/such', '/dev/null'], {own!r}))\n"
        f"open({readable + '/file'!r}); open({own + '/new'!r}, 'w'); open('/dev/null', 'w'); print('open')\n"
        f"for act in (lambda: open({closed + '/file'!r}), lambda: open({readable + '/file'!r}, 'w'),"
        f" lambda: os.listdir({closed!r}), lambda: os.truncate({closed + '/file'!r}, 0),"
        f" lambda: os.rename({own + '/file'!r}, {closed + '/moved'!r})):\n"
        " try: act(); print('reached')\n except OSError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["open", *["refused"] * 5]
    assert os.listdir(closed) == ["file"]
