"""Attacks on what is outside: files, processes, the network, the kernel. None gets there."""

import os
import platform
import sysconfig
from pathlib import Path

import attacks
import pytest
import torch
from attacks import SUM, Attack, harmless

# Only a call that is refused as such counts: one that fails because of its arguments was reached.
LIBC = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
 if libc.syscall(*arguments) < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS): raise OSError
"""
PROJECT = Path(__file__).parents[2]
STDLIB, PACKAGES = sysconfig.get_path("stdlib"), str(Path(torch.__file__).parents[1])
# Numbers on x86_64.
CALLS = {
    "memfd_create": "319, b'x', 0",
    "shmget": "29, 0, 4096, 0o1600",
    "msgget": "68, 0, 0o1600",
    "semget": "64, 0, 1, 0o1600",
    "mq_open": "240, b'x', 0o102, 0o600, 0",
    "ptrace": "101, 16, {parent}, 0, 0",
    "process_vm_readv": "310, {parent}, 0, 0, 0, 0, 0",
    "process_vm_writev": "311, {parent}, 0, 0, 0, 0, 0",
    "kcmp": "312, {parent}, {parent}, 0, 0, 0",
    "pidfd_open": "434, {parent}, 0",
    "io_uring_setup": "425, 8, ctypes.create_string_buffer(120)",
    "bpf": "321, 0, 0, 0",
    "perf_event_open": "298, ctypes.create_string_buffer(128), 0, -1, -1, 0",
    "userfaultfd": "323, 1",
    "keyctl": "250, 0, -3, 1",
    "add_key": "248, b'user', b'x', b'x', 1, -3",
    "mount": "165, b'none', b'/tmp', b'tmpfs', 0, 0",
    "umount": "166, b'/tmp', 2",
    "pivot_root": "155, b'/', b'/tmp'",
    "chroot": "161, b'/tmp'",
    "unshare, user": "272, 0x10000000",
    "unshare, mount": "272, 0x20000",
    "setns": "308, 0, 0",
    "clone, user namespace": "56, 0x10000011, 0, 0, 0, 0",
    "clone3": "435, ctypes.create_string_buffer(88), 88",
    "vfork": "58",
    "open_by_handle_at": "304, -100, ctypes.create_string_buffer(16), 0",
    "init_module": "175, 0, 0, b''",
    "kexec_load": "246, 0, 0, 0, 0",
    "reboot": "169, 0xfee1dead, 672274793, 0x89abcdef, 0",
    "swapon": "167, b'/tmp/x', 0",
    "settimeofday": "164, ctypes.create_string_buffer(16), 0",
    "sethostname": "170, b'x', 1",
    "setuid": "105, 0",
    "personality": "135, 0x40000",
    "seccomp": "317, 1, 0, 0",
    "x32 call": "0x40000000 + 39",
}
FOREIGN = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20; int 0x80; ret: getpid of the 32-bit interface
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""


def outside(host) -> list[Attack]:
    """Attacks that aim at this very machine: its files, its processes, its listener."""
    file, folder, port, parent = str(host.file), str(host.folder), host.port, os.getpid()
    own = [
        str(PROJECT / "README.md"),
        __file__,
        os.path.expanduser("~/.bashrc"),
        "/etc/passwd",
        "/etc/hostname",
        "/etc/shadow",
    ]
    calls = [f"call({arguments.format(parent='os.getppid()')})" for arguments in CALLS.values()]
    return [
        harmless("reading files", *(f"open({path!r}).read(1)" for path in [file, *own])),
        harmless(
            "listing folders",
            *(
                f"assert not os.listdir({path!r})"
                for path in (folder, str(PROJECT), "/home", "/etc/ssl", "/var", "/opt")
            ),
        ),
        harmless(
            "changing files",
            f"open({file!r}, 'w')",
            f"os.remove({file!r})",
            f"os.rename({file!r}, {file + 'x'!r})",
            f"os.truncate({file!r}, 0)",
            f"os.link({file!r}, 'x'); open('x').read()",
            f"os.chmod({file!r}, 0)",
            f"os.utime({file!r})",
            f"os.mkdir({folder + '/x'!r})",
            f"import shutil; shutil.rmtree({folder!r})",
        ),
        harmless(
            "symbolic links out",
            f"os.symlink({file!r}, 'a'); open('a').read()",
            f"os.symlink({folder!r}, 'b'); open('b/x', 'w')",
            f"os.symlink('/', 'c'); open('c' + {file!r}).read()",
            f"os.symlink('..', 'd'); open('d/d/d/d/d' + {file!r}).read()",
        ),
        harmless(
            "relative paths out",
            f"open('../../../../../../../..' + {file!r}).read()",
            f"os.chdir('/'); open({file[1:]!r}).read()",
            f"open({file[1:]!r}, opener=lambda p, f: os.open(p, f, dir_fd=os.open('/', 0))).read()",
            f"os.stat({file[1:]!r}, dir_fd=os.open('/', os.O_PATH)); open('/proc/self/root' + {file!r}).read()",
        ),
        harmless(
            "writing to Python",
            *(
                f"open({path + '/planted.py'!r}, 'w')"
                for path in (STDLIB, PACKAGES, STDLIB + "/site-packages", "/sandbox", "/usr/lib")
            ),
            f"open({STDLIB + '/os.py'!r}, 'a')",
            f"os.remove({STDLIB + '/os.py'!r})",
        ),
        harmless(
            "installed packages",
            "import torch",
            "import numpy",
            "import gopd_lightning",
            f"sys.path.insert(0, {PACKAGES!r}); import numpy",
            f"sys.path.insert(0, {str(PROJECT)!r}); import gopd_lightning",
        ),
        harmless(
            "signals to others",
            "os.kill(os.getppid(), 9)",
            "os.kill(-1, 9)",
            "os.kill(1, 9)",
            f"os.kill({parent}, 9)",
            "os.killpg(os.getpgid(os.getppid()), 9)",
            "os.kill(0, 9)",
            "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
        ),
        harmless(
            "signals by descriptor",
            "import fcntl; r, w = os.pipe(); fcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())",
            "import fcntl; fcntl.fcntl(os.pipe()[0], 10, 9)",
        ),
        harmless(
            "looking into the parent",
            *(
                f"open('/proc/{who}/{what}', 'rb').read(1)"
                for who in ("1", parent, "self")
                for what in ("mem", "environ", "cmdline", "maps", "root/etc/passwd")
            ),
            "open(f'/proc/{os.getppid()}/mem', 'rb')",
            "os.listdir('/proc')",
        ),
        harmless(
            "TCP",
            f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
            "import socket; socket.create_connection(('1.1.1.1', 53), 1)",
            "import socket; socket.create_server(('127.0.0.1', 0))",
            "import socket; socket.socket(socket.AF_INET6)",
            "import urllib.request; urllib.request.urlopen('http://example.com', timeout=1)",
        ),
        harmless(
            "UDP, raw and other sockets",
            f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
            "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
            "import socket; socket.socket(16, socket.SOCK_RAW, 0)",
            "import socket; socket.socket(40, socket.SOCK_STREAM)",
        ),
        harmless(
            "unix and abstract sockets",
            "import socket; socket.socket(socket.AF_UNIX).bind('here')",
            "import socket; socket.socket(socket.AF_UNIX).bind('\\0here')",
            "import socket; socket.socket(socket.AF_UNIX).connect('/run/docker.sock')",
        ),
        harmless(
            "DNS",
            "import socket; socket.getaddrinfo('example.com', 80)",
            "import socket; socket.gethostbyname('example.com')",
        ),
        harmless(
            "other programs",
            "os.execv('/bin/sh', ['sh', '-c', 'true'])",
            "os.execv(sys.executable, ['python'])",
            "import subprocess; subprocess.run(['/bin/true'])",
            "os.posix_spawn('/bin/true', ['true'], {})",
            "import pty; pty.spawn('/bin/true')",
            "import multiprocessing as m; p = m.Process(target=int); p.start()",
            "if os.system('exit 0') != 0: raise OSError",
        ),
        harmless(
            "children and sessions",
            "os.fork()",
            "os.forkpty()",
            "if os.fork() == 0: os.setsid(); os.fork()",
            "os.setsid()",
            "os.setpgid(0, 0)",
        ),
        harmless(
            "devices and special files",
            "os.mknod('disk', 0o60600, os.makedev(8, 0)); open('disk')",
            "open('/dev/mem')",
            "open('/dev/vda')",
            "open('/dev/sda')",
            "open('/dev/tty')",
            "open('/dev/shm/x', 'w')",
            "os.mkfifo('x')",
            "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
        ),
        harmless(
            "rights",
            "os.chmod('.', 0o7777)",
            "os.chown('.', 0, 0)",
            "os.setuid(0); open('/etc/shadow')",
            "os.setgroups([0])",
            "os.chroot('.')",
            "os.setxattr('.', 'user.x', b'x')",
        ),
        harmless("system calls", *calls, setup=LIBC, weak="PermissionError"),
        harmless(
            "shared memory",
            "from multiprocessing import shared_memory as s; s.SharedMemory(create=True, size=9)",
            "import multiprocessing as m; m.Lock()",
        ),
        Attack("32-bit system calls", FOREIGN + SUM, "signal 31", weak="PermissionError"),
        Attack(
            "child that outlives its parent",
            "import os\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  while True: pass\n" + SUM,
            "PermissionError",
        ),
        Attack("segmentation fault", "import ctypes\nctypes.string_at(0)\n" + SUM, "signal 11", weak="PermissionError"),
        Attack("abort", "import os\nos.abort()\n" + SUM, "signal 6"),
        Attack("killing itself", "import os\nos.kill(os.getpid(), 9)\n" + SUM, "signal 9", weak="PermissionError"),
    ]


NAMES = [attack.name for attack in outside(type("Nowhere", (), {"file": Path("/x"), "folder": Path("/"), "port": 1}))]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_outside_is_reached(verifier, host, name):
    if name in ("system calls", "32-bit system calls") and platform.machine() != "x86_64":
        pytest.skip("written for x86_64")
    attacks.check(verifier, next(attack for attack in outside(host) if attack.name == name), host)


def test_attempts_succeed_where_nothing_confines_them(host):
    """The attempts are real: outside a sandbox the reading ones get through."""
    scope = {}
    exec(next(attack for attack in outside(host) if attack.name == "reading files").program, scope)
    assert any(str(host.file) in done for done in scope["f"]([1, 2]))
