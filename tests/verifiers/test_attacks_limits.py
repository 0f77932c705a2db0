"""Attacks on the machine: every one ends at a limit, and the next program runs."""

import attacks
import pytest
from attacks import SUM, Attack, harmless

CPU = "CPU time above 0.25 s"
MEMORY = "memory|Cannot allocate|killed by signal|can't start new thread"

ATTACKS = [
    Attack("infinite loop", "def f(xs):\n while True: pass", CPU),
    Attack("infinite loop at import", "while True: pass", CPU),
    Attack(
        "infinite loop that catches everything",
        "def f(xs):\n while True:\n  try: 1/0\n  except BaseException: pass",
        CPU,
    ),
    Attack("catastrophic regular expression", "import re\ndef f(xs):\n re.match('(a+)+$', 'a' * 64 + 'b')", CPU),
    Attack("huge power", "def f(xs):\n return 9 ** 9 ** 9", f"{CPU}|memory"),
    Attack("huge int to str", "import sys\nsys.set_int_max_str_digits(0)\ndef f(xs):\n return str(7 ** 10**7)", CPU),
    Attack(
        "limit signals ignored",
        "import signal\nfor s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        CPU,
    ),
    Attack("sleeping past the limit", "import time\ndef f(xs):\n time.sleep(3600)", "ran for 2.5 s"),
    Attack(
        "stopping itself",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n" + SUM,
        "ran for 2.5 s",
        weak="PermissionError",
    ),
    Attack(
        "busy in threads",
        "import threading\nfor _ in range(4): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\n"
        + SUM
        + "\nimport time; time.sleep(60)",
        CPU,
    ),
    Attack(
        "thread that runs on, function",
        "import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\n" + SUM,
        "",
    ),
    Attack(
        "thread that runs on, script",
        "import threading\nprint(input())\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
        CPU,
        script=True,
    ),
    Attack("memory bomb, list", "def f(xs):\n return [0] * 10**10", "memory"),
    Attack(
        "memory bomb, growing bytes", "def f(xs):\n b = bytearray()\n while True: b += bytes(2**24)", f"memory|{CPU}"
    ),
    Attack("memory bomb, mmap", "import mmap\ndef f(xs):\n return mmap.mmap(-1, 2**33)[0]", "Cannot allocate"),
    Attack(
        "memory bomb, many shared maps",
        "import mmap\ndef f(xs):\n m = [mmap.mmap(-1, 2**20) for _ in range(10**6)]",
        f"{MEMORY}|{CPU}",
    ),
    Attack(
        "memory bomb, threads",
        "import threading\nkeep = []\ndef eat():\n while True: keep.append(bytes(2**22))\n"
        "ts = [threading.Thread(target=eat) for _ in range(8)]\n[t.start() for t in ts]\n"
        "[t.join() for t in ts]\n" + SUM + "\nprint(len(keep))\nassert 0",
        f"AssertionError|{MEMORY}|{CPU}",
    ),
    Attack(
        "memory bomb, billion laughs",
        "def f(xs):\n x = ['ha']\n for _ in range(40): x = [x] * 10\n return x",
        f"memory|{CPU}|output above",
    ),
    Attack(
        "memory bomb in a handler",
        "def f(xs):\n b = []\n while True:\n  try: b.append(bytes(2**20))\n  except MemoryError: pass",
        CPU,
    ),
    Attack(
        "thread bomb",
        "import threading, time\nthreading.stack_size(32768)\n"
        "while True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        f"{MEMORY}|{CPU}|ran for",
    ),
    Attack("fork bomb", "import os\nwhile True: os.fork()", "PermissionError"),
    Attack("fork bomb that retries", "import os\nwhile True:\n try: os.fork()\n except OSError: pass", CPU),
    Attack("endless stdout, script", "while True: print('x' * 10**6)", "output above 16 MiB", script=True),
    Attack(
        "endless stdout past errors, script",
        "import os\nwhile True:\n try: os.write(1, bytes(2**20))\n except OSError: break",
        "output above 16 MiB",
        script=True,
    ),
    Attack("endless stdout, function", "def f(xs):\n while True: print('x' * 10**6)", CPU),
    Attack("endless stderr", "import sys\nwhile True: sys.stderr.write('x' * 10**6)", CPU),
    Attack("endless recursion", "def f(xs):\n return f(xs)", "RecursionError"),
    Attack(
        "recursion in C",
        "import sys\nsys.setrecursionlimit(10**9)\nclass C:\n def __repr__(self): return repr(self)\n"
        "def f(xs):\n return repr(C())",
        f"signal 11|{MEMORY}|RecursionError|{CPU}",
    ),
    Attack("deeply nested source", "def f(xs):\n return " + "(" * 5000 + ")" * 5000, "SyntaxError|memory|signal 11"),
    Attack(
        "source of a million signs",
        "def f(xs):\n return " + "-" * 10**6 + "1",
        f"RecursionError|memory|signal|{CPU}|SyntaxError",
    ),
    Attack("100 MB returned", "def f(xs):\n return 'x' * 10**8", f"output above 8 MiB|memory|{CPU}"),
    Attack("10 MB returned", "def f(xs):\n return 'x' * 10**7", "output above 8 MiB"),
    Attack("endless generator returned", "import itertools\ndef f(xs):\n return itertools.count()", "expected 3"),
    Attack(
        "endless list returned",
        "class L(list):\n def __iter__(self):\n  while True: yield 0\ndef f(xs):\n return L()",
        f"{CPU}|memory",
    ),
    Attack(
        "deeply nested value returned",
        "def f(xs):\n v = []\n for _ in range(400): v = [v]\n return v",
        "nested deeper|RecursionError",
    ),
    Attack("value that holds itself returned", "def f(xs):\n v = []\n v.append(v)\n return v", "RecursionError"),
    Attack(
        "deeply nested text forged",
        "import os\nos.write(3, b'{\"value\": ' + b'[' * 10**6 + b']' * 10**6 + b'}\\n')\n" + SUM,
        "unreadable value|nested deeper",
    ),
    Attack(
        "millions of digits forged",
        "import os\nos.write(3, b'{\"value\": ' + b'9' * 10**6 + b'}\\n')\n" + SUM,
        "unreadable value",
    ),
    Attack(
        "one huge file", "def f(xs):\n with open('big', 'wb') as big:\n  while True: big.write(bytes(2**20))", "OSError"
    ),
    Attack(
        "huge sparse file",
        "import os\ndef f(xs):\n os.truncate(os.open('big', os.O_CREAT | os.O_RDWR), 2**40)",
        "OSError|PermissionError",
    ),
    Attack(
        "folder filled with files",
        "import itertools\ndef f(xs):\n for i in itertools.count(): open(str(i), 'wb').write(bytes(2**22))",
        "No space left",
    ),
    Attack(
        "folder filled with empty files",
        "import itertools\ndef f(xs):\n for i in itertools.count(): open(str(i), 'wb').close()",
        f"{CPU}|No space left",
    ),
    Attack(
        "folders a thousand deep",
        "import os\nfor _ in range(3000):\n os.mkdir('d' * 200)\n os.chdir('d' * 200)\n" + SUM,
        "",
        weak="PermissionError",
    ),
    Attack(
        "folder without rights",
        "import os\nos.mkdir('d', 0)\nos.mkdir('e')\nopen('e/f', 'w').close()\nos.umask(0o777)\nos.mkdir('g')\n" + SUM,
        "",
    ),
    Attack(
        "all descriptors taken",
        "import os\nkeep = []\nwhile True: keep.append(os.open('/dev/null', 0))",
        "Too many open files",
    ),
    Attack(
        "pipes filled",
        "import os\nkeep = []\nwhile True:\n r, w = os.pipe()\n os.set_blocking(w, False)\n try:\n"
        "  while True: os.write(w, bytes(65536))\n except BlockingIOError: pass",
        "Too many open files",
    ),
    Attack(
        "report filled",
        "import os\nfor _ in range(15): os.write(3, b'{\"value\": 1}\\n' * 80000)\n" + SUM,
        f"output above 8 MiB|{CPU}",
    ),
    Attack(
        "values that are slow to decode forged",  # all have the same hash
        "import os\nsame = ', '.join(str(i * (2**61 - 1)) for i in range(10**5))\n"
        'text = \'{"value": {"$type": "set", "value": [%s]}}\\n\' % same\n'
        "for _ in range(2): os.write(3, text.encode())\n" + SUM,
        "unreadable value",
    ),
    harmless(
        "limits raised",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40))",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (10**5, 10**5))",
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))",
        "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
        "os.nice(-5)",
        "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "os.sched_setaffinity(os.getppid(), {0})",
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))",
    ),
]

WEAK_DOES_NOT_PROMISE = {
    "folder filled with files": "only the size of a file and processor time limit it",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_limits_hold(verifier, host, attack):
    if verifier.sandbox == "weak" and attack.name in WEAK_DOES_NOT_PROMISE:
        pytest.skip(WEAK_DOES_NOT_PROMISE[attack.name])
    attacks.check(verifier, attack, host)
