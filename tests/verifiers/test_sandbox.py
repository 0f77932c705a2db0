"""The sandbox: what a job is answered, which sandbox is in force, and what stays when all is over."""

import os
import re
import subprocess
import sys
import time

import attacks
import pytest
from attacks import weak_only

from gopd_lightning.errors import InputError
from gopd_lightning.verifiers.sandbox import pool as sandbox
from gopd_lightning.verifiers.sandbox.values import decode, encode

LIMITS = {"cpu_seconds": 1.0, "wall_seconds": 20.0, "memory_mb": 256}


@pytest.fixture(scope="module", params=["bubblewrap", "weak"])
def pool(request):
    if request.param == "bubblewrap" and (refusal := sandbox.bubblewrap_refusal()):
        pytest.skip(f"no bubblewrap here: {refusal}")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "weak":
            weak_only(patch)
        made = sandbox.program_pool(2, allow_weak=request.param == "weak")
    assert made.hello()["sandbox"] == request.param
    yield made
    made.close()


def run(pool, program, inputs, fn_name="f", **limits):
    job = {"program": program, "fn_name": fn_name, "inputs": inputs, **LIMITS, **limits}
    return pool.ask([(job, 120.0)])[0]


def script(pool, program, *inputs, **limits):
    return run(pool, program, list(inputs), None, **limits)


def test_calls_of_a_function_share_one_process_and_keep_their_types(pool):
    program = "seen = []\ndef f(x, y):\n seen.append(x)\n return {x: (y, len(seen))}"
    answer = run(pool, program, [[encode((1, 2)), encode({3})], [encode(b"k"), None]])
    assert [decode(value) for value in answer["outputs"]] == [{(1, 2): ({3}, 1)}, {b"k": (None, 2)}]
    assert answer["error"] is None
    assert 0 < answer["cpu_seconds"] < 1


def test_function_may_be_a_method_of_solution(pool):
    assert run(pool, "class Solution:\n def f(self, x):\n  return x + 1", [[1], [2]])["outputs"] == [2, 3]


def test_every_stdin_test_has_a_process_of_its_own(pool):
    program = "import os\nprint(input(), os.path.exists('x'), __name__)\nopen('x', 'w').close()"
    assert script(pool, program, "a\n", "b")["outputs"] == ["a False __main__\n", "b False __main__\n"]


@pytest.mark.parametrize(
    ("program", "outputs", "error"),
    [
        ("def f(x):\n return 4 // x", [4], "ZeroDivisionError: integer division or modulo by zero"),
        ("def f(x):\n return int('a\\nb') if not x else x", [1], r"ValueError: invalid literal .* 'a\\nb'"),
        ("def f(x:", [], "SyntaxError: .*"),
        ("def g(x):\n return x", [], "NameError: no function 'f'"),
        ("def f(x):\n return x if x else exit()", [1], "exited before the last test"),
        ("def f(x):\n return x if x else bytes(2**30)", [1], "memory"),
        ("def f(x):\n while x == 0: pass\n return x", [1], "killed: CPU time above 0.2 s"),
        ("import time\ndef f(x):\n if not x: time.sleep(9)\n return x", [1], "killed: ran for 0.5 s"),
        ("import os\ndef f(x):\n if not x: os.abort()\n return x", [1], "killed by signal 6"),
        ("def f(x):\n return x if x else '.' * 9 * 2**20", [1], "output above 8 MiB"),
    ],
)
def test_outputs_up_to_the_first_failure_and_its_reason(pool, program, outputs, error):
    answer = run(pool, program, [[1], [0], [1]], cpu_seconds=0.2, wall_seconds=0.5)
    assert answer["outputs"] == outputs
    assert re.fullmatch(error, answer["error"])


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("print(int(input()))", "ValueError: invalid literal for int.*"),
        ("import sys\nprint(input())\nsys.exit(0 if 1 else 1) if 0 else sys.exit('no')", "exit status 1"),
        ("exit(3)", "exit status 3"),
        ("print('x' * 2**25)", "output above 16 MiB"),
    ],
)
def test_failed_script_has_no_output(pool, program, error):
    answer = script(pool, program, "a")
    assert answer["outputs"] == []
    assert re.fullmatch(error, answer["error"])


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("import threading\nthreading.Thread(target=print, args=('late',)).start()", "late\n"),
        ("import atexit\natexit.register(print, 'bye')\nexit()", "bye\n"),
        ("import sys\nsys.stdout.write(sys.stdin.read())", "in\u00fc"),
        ("import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())", "in\u00fc"),
        ("print(open(0).read())", "in\u00fc\n"),
        ("import os\nos.write(1, os.read(0, 99))", "in\u00fc"),
        ("import asyncio\nasync def f(): print(1)\nasyncio.run(f())", "1\n"),
        ("from concurrent.futures import ThreadPoolExecutor as T\nprint(sum(T(8).map(int, '1234')))", "10\n"),
        (
            "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\n"
            "def g(n): return n and g(n - 1)\nt = threading.Thread(target=lambda: print(g(10**5)))\n"
            "t.start()\nt.join()",
            "0\n",
        ),
        ("import tempfile\nwith tempfile.TemporaryFile() as t: print(t.write(b'abc'))", "3\n"),
        ("from dataclasses import dataclass\n@dataclass\nclass C:\n x: 'int'\nprint(C(1))", "C(x=1)\n"),
        ("import sys\nprint(sys.modules['__main__'].__dict__ is globals())", "True\n"),
    ],
)
def test_ordinary_scripts_work(pool, program, output):
    assert script(pool, program, "in\u00fc") == {
        "outputs": [output],
        "error": None,
        "cpu_seconds": pytest.approx(0.5, abs=0.5),
    }


def test_chance_and_order_of_sets_are_the_same_every_time(pool):
    program = "import random\nprint(random.random(), random.shuffle(x := list(range(9))), x, set('abcdefgh'))"
    jobs = [({"program": program, "fn_name": None, "inputs": [""], **LIMITS}, 60.0)] * 8
    assert len({answer["outputs"][0] for answer in pool.ask(jobs)}) == 1


def test_processor_time_decides_not_the_load(pool):
    spin = "import time\ndef f(seconds):\n while time.process_time() < seconds: pass\n return 1"
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        time.sleep(0.3)
        legal = run(pool, spin, [[0.6]], cpu_seconds=0.8)
        assert (legal["outputs"], legal["error"]) == ([1], None)
        assert run(pool, spin, [[1.2]], cpu_seconds=0.8)["error"] == "killed: CPU time above 0.8 s"
    finally:
        for process in busy:
            process.kill()
            process.wait()


def broken_bubblewrap(folder, monkeypatch, text):
    (folder / "bwrap").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    sandbox._trial.cache_clear()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "echo 'bwrap: No permissions to create a new namespace' >&2\necho more >&2\nexit 1",
            "No permissions to create",
        ),
        ("exit 7", "its exit status is 7"),
    ],
)
def test_refused_bubblewrap_needs_an_explicit_setting(tmp_path, monkeypatch, text, why):
    broken_bubblewrap(tmp_path, monkeypatch, text)
    try:
        with pytest.raises(
            InputError, match=rf"bubblewrap does not work here \(.*{why}.*allow_weak_sandbox: true"
        ) as error:
            sandbox.program_pool(1, allow_weak=False)
        assert "\n" not in str(error.value)
        weak = sandbox.program_pool(1, allow_weak=True)
        assert why in sandbox.describe(weak.hello()["sandbox"])
        assert "WEAK" in sandbox.describe(weak.hello()["sandbox"])
        weak.close()
    finally:
        sandbox._trial.cache_clear()


def test_missing_bubblewrap_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox._trial.cache_clear()
    try:
        with pytest.raises(InputError, match="bwrap is not installed"):
            sandbox.program_pool(1, allow_weak=False)
    finally:
        sandbox._trial.cache_clear()


def test_bubblewrap_that_cannot_close_user_namespaces_still_counts(tmp_path, monkeypatch):
    if sandbox.bubblewrap_refusal():
        pytest.skip("no bubblewrap here")
    real = sandbox.shutil.which("bwrap")
    broken_bubblewrap(tmp_path, monkeypatch, f'case "$*" in *--disable-userns*) exit 1;; esac\nexec {real} "$@"')
    try:
        pool = sandbox.program_pool(1, allow_weak=False)
        assert run(pool, "def f():\n return 1", [[]])["outputs"] == [1]
        pool.close()
    finally:
        sandbox._trial.cache_clear()


def test_pool_leaves_no_process(pool):
    before = attacks.processes_below(os.getpid())
    extra = sandbox.program_pool(2, allow_weak=True)
    assert run(extra, "def f():\n return 1", [[]])["outputs"] == [1]
    extra.close()
    assert attacks.strays(len(before)) == 0


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("weak", [False, True])
def test_killed_trainer_leaves_no_process_and_no_folder(tmp_path, busy, weak):
    """Also while a program is running."""
    code = f"""
import os, threading, time
from gopd_lightning.verifiers.sandbox import pool as sandbox
if {weak}: sandbox.bubblewrap_refusal = lambda: "not tried"
pool = sandbox.program_pool(1, True)
pool.hello()
program = "print(1)\\nwhile True: pass  # {tmp_path}"
job = {{"program": program, "fn_name": None, "inputs": [""], "cpu_seconds": 60, "wall_seconds": 60, "memory_mb": 256}}
if {busy}: threading.Thread(target=pool.ask, args=([(job, 99)],), daemon=True).start(); time.sleep(0.5)
import attacks
print(*attacks.processes_below(os.getpid()), flush=True)
os.kill(os.getpid(), 9)
"""
    folder = os.path.dirname(__file__)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([folder, *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=False)
    children = [int(word) for word in done.stdout.split()]
    assert children
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(os.path.exists(f"/proc/{pid}") for pid in children):
        time.sleep(0.02)
    assert [pid for pid in children if os.path.exists(f"/proc/{pid}")] == []
    assert busy or list(tmp_path.iterdir()) == []
