"""The system calls that a program may make: a seccomp filter in pure Python.

Standard library only, and nothing of gopd: the program runner loads this file inside the sandbox. Calls that are
not on the list fail with EPERM (newer ones with ENOSYS, as on an older kernel): no processes, programs, sockets,
tracing, mounts, keys, shared memory or signals to others. Threads work.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence

# Name, number on x86_64, number on aarch64 (Linux: asm/unistd_64.h and asm-generic/unistd.h).
_ALLOWED = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70
preadv2 327 286; pwritev2 328 287; open 2 -; openat 257 56; openat2 437 437; creat 85 -; close 3 57
close_range 436 436; lseek 8 62; stat 4 -; fstat 5 80; lstat 6 -; newfstatat 262 79; statx 332 291
statfs 137 43; fstatfs 138 44; access 21 -; faccessat 269 48; faccessat2 439 439; readlink 89 -
readlinkat 267 78; getdents 78 -; getdents64 217 61; getcwd 79 17; chdir 80 49; fchdir 81 50; mkdir 83 -
mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35; rename 82 -; renameat 264 38; renameat2 316 276
link 86 -; linkat 265 37; symlink 88 -; symlinkat 266 36; ftruncate 77 46; fallocate 285 47; fadvise64 221 223
fsync 74 82; fdatasync 75 83; sync_file_range 277 84; copy_file_range 326 285; sendfile 40 71; flock 73 32
dup 32 23; dup2 33 -; dup3 292 24; pipe 22 -; pipe2 293 59; umask 95 166; munmap 11 215
mprotect 10 226; mremap 25 216; madvise 28 233; msync 26 227; mincore 27 232; brk 12 214; rt_sigaction 13 134
rt_sigprocmask 14 135; rt_sigreturn 15 139; rt_sigpending 127 136; rt_sigsuspend 130 133
rt_sigtimedwait 128 137; sigaltstack 131 132; pause 34 -; restart_syscall 219 128; alarm 37 -; getitimer 36 102
setitimer 38 103; timer_create 222 107; timer_settime 223 110; timer_gettime 224 108; timer_getoverrun 225 109
timer_delete 226 111; nanosleep 35 101; clock_nanosleep 230 115; time 201 -; gettimeofday 96 169
clock_gettime 228 113; clock_getres 229 114; times 100 153; getrusage 98 165; sysinfo 99 179; uname 63 160
getrandom 318 278; futex 202 98; futex_waitv 449 449; set_robust_list 273 99; get_robust_list 274 100
set_tid_address 218 96; rseq 334 293; membarrier 324 283; arch_prctl 158 -; getpid 39 172; gettid 186 178
getppid 110 173; getuid 102 174; geteuid 107 175; getgid 104 176; getegid 108 177; getresuid 118 148
getresgid 120 150; getgroups 115 158; getpgid 121 155; getpgrp 111 -; getsid 124 156; getpriority 140 141
sched_yield 24 124; sched_getaffinity 204 123; sched_getparam 143 121; sched_getscheduler 145 120
sched_get_priority_max 146 125; sched_get_priority_min 147 126; getcpu 309 168; getrlimit 97 163
setrlimit 160 164; poll 7 -; ppoll 271 73; select 23 -; pselect6 270 72; epoll_create 213 -
epoll_create1 291 20; epoll_ctl 233 21; epoll_wait 232 -; epoll_pwait 281 22; eventfd 284 -; eventfd2 290 19
timerfd_create 283 85; timerfd_settime 286 86; timerfd_gettime 287 87; wait4 61 260; waitid 247 95; exit 60 93
exit_group 231 94
"""
_NUMBERS = {  # of calls that are allowed with certain arguments only
    "clone": (56, 220),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
    "socketpair": (53, 199),
    "prctl": (157, 167),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "mmap": (9, 222),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*
_X32 = 0x40000000
_FIRST_NEW = 424  # numbers from here on are the same everywhere; C libraries fall back when they are missing
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_THREAD, _NAMESPACES = 0x00010000, 0x7E020080  # flags of clone
_UNIX = 1
_THREAD_NAME = (15, 16)
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, its size; bytes left; flags
_OWNERSHIP = (8, 10, 15)  # F_SETOWN, F_SETSIG and F_SETOWN_EX: would send signals to other processes
_MAP_STACK, _SMALLEST_STACK = 0x20000, 512 * 2**10  # so that memory limits the number of threads
_PR_GET_SECCOMP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 21, 22, 38, 2

_OWN_PID = 0x7EADBEEF  # stands for the process's own number until `apply`

Code = list[tuple[int, int, int, int]]


def supported() -> bool:
    """Whether this machine filters system calls."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES or sys.maxsize < 2**32:
        return False
    return int(ctypes.CDLL(None).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0)) >= 0


def program_filter(machine: str) -> bytes:
    """The filter as the kernel takes it, an array of `struct sock_filter`, for any process (see `apply`).

    Args:
        machine: "x86_64" or "aarch64".
    """
    column, architecture = _MACHINES[machine]
    code: Code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), _end(_KILL), (_LOAD, 0, 0, 0)]
    code += [(_AT_LEAST, 0, 1, _X32), _refuse(errno.EPERM)]
    for name, block in _conditional().items():
        code += [(_EQUAL, 0, len(block), _NUMBERS[name][column]), *block]
    for number in allowed(column):
        code += [(_EQUAL, 0, 1, number), _end(_ALLOW)]
    code += [(_AT_LEAST, 0, 1, _FIRST_NEW), _refuse(errno.ENOSYS), _refuse(errno.EPERM)]
    return b"".join(struct.pack("HBBI", *step) for step in code)


def allowed(column: int) -> list[int]:
    """Numbers of the calls that are allowed whatever their arguments.

    Args:
        column: 0 for x86_64, 1 for aarch64.
    """
    rows = [entry.split() for entry in _ALLOWED.replace("\n", ";").split(";") if entry.strip()]
    return [int(row[1 + column]) for row in rows if row[1 + column] != "-"]


def apply(code: bytes) -> None:
    """Put this process under a filter, for good; it may send signals to itself.

    Args:
        code: What `program_filter` made.

    Raises:
        OSError: The kernel refuses.
    """
    program = _Program(len(code) // 8, code.replace(struct.pack("I", _OWN_PID), struct.pack("I", os.getpid())))
    libc = ctypes.CDLL(None, use_errno=True)
    for option in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*option) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _conditional() -> dict[str, Code]:
    """Code that ends with an answer, for calls whose arguments matter."""
    own = [_argument(0), *_allow_values((_OWN_PID,)), _refuse(errno.EPERM)]
    clone: Code = [_argument(0), (_ANY_BIT, 0, 2, _THREAD), (_ANY_BIT, 1, 0, _NAMESPACES), _end(_ALLOW)]
    return {
        "clone": [*clone, _refuse(errno.EPERM)],
        "kill": own,
        "tgkill": own,
        "prlimit64": [_argument(0), *_allow_values((0, _OWN_PID)), _refuse(errno.EPERM)],
        "socketpair": [_argument(0), *_allow_values((_UNIX,)), _refuse(errno.EPERM)],
        "prctl": [_argument(0), *_allow_values(_THREAD_NAME), _refuse(errno.EPERM)],
        "ioctl": [_argument(1), *_allow_values(_IOCTLS), _refuse(errno.ENOTTY)],
        "mmap": [
            *(_argument(3), (_ANY_BIT, 0, 4, _MAP_STACK), (_LOAD, 0, 0, 16 + 8 + 4), (_AT_LEAST, 2, 0, 1)),
            *(_argument(1), (_AT_LEAST, 0, 1, _SMALLEST_STACK), _end(_ALLOW), _refuse(errno.ENOMEM)),
        ],
        "fcntl": [_argument(1), *_refuse_values(_OWNERSHIP), _end(_ALLOW)],
    }


def _argument(index: int) -> tuple[int, int, int, int]:
    return _LOAD, 0, 0, 16 + 8 * index  # its low half: these arguments are 32 bits wide


def _allow_values(values: Sequence[int]) -> Code:
    return [step for value in values for step in ((_EQUAL, 0, 1, value), _end(_ALLOW))]


def _refuse_values(values: Sequence[int]) -> Code:
    return [step for value in values for step in ((_EQUAL, 0, 1, value), _refuse(errno.EPERM))]


def _refuse(number: int) -> tuple[int, int, int, int]:
    return _end(_REFUSE | number)


def _end(answer: int) -> tuple[int, int, int, int]:
    return _RETURN, 0, 0, answer
