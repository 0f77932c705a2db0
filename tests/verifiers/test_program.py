"""Programs against hidden tests: verdicts, limits and isolation."""

import copy
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt
from gopd_lightning.verifiers import ProgramVerifier, Verifier, extract_program, program_runner

SUM = "def f(xs):\n return sum(xs)"


@pytest.fixture(scope="module")
def verifier():
    made = ProgramVerifier(cpu_seconds=1, wall_seconds=2.5, memory_mb=256)
    yield made
    made.close()


def prompt(answer) -> Prompt:
    text = answer if answer is None or isinstance(answer, str) else json.dumps(answer)
    return Prompt(uid=0, domain="code", dataset="d", text="", ids=[], answer=text, source="rows.jsonl row 7")


def function(inputs, outputs):
    return prompt({"fn_name": "f", "inputs": inputs, "outputs": outputs})


ONE = function([[[1, 2]], [[5]]], [3, 5])


def reward(verifier, case, program):
    return verifier.verify([case], [program])[0]


def probe(verifier, body, expected=True):
    """Reward of a function that does `body` and returns `found`."""
    lines = "\n ".join(body.splitlines())
    return reward(verifier, function([[]], [expected]), f"def f():\n {lines}\n return found")


def test_right_program_earns_one_and_wrong_one_nothing(verifier):
    assert reward(verifier, ONE, SUM) == 1.0
    assert reward(verifier, ONE, "def f(xs):\n return xs[0]") == 0.0  # passes the second test only


@pytest.mark.parametrize(
    "program",
    [
        "def f(xs:\n return 1",
        "",
        "def g(xs):\n return sum(xs)",
        "import sys\nsys.exit(0)\n" + SUM,
        "import os\nos._exit(0)\n" + SUM,
        "def f(xs):\n raise SystemExit(0)",
        "def f(xs):\n return object()",
        "def f(xs):\n return f(xs)",
        "class Any:\n def __eq__(self, other):\n  return True\ndef f(xs):\n return Any()",
        "\ud800",
    ],
)
def test_program_that_gives_no_right_value_fails(verifier, program):
    assert reward(verifier, ONE, program) == 0.0


def test_last_fenced_block_is_the_program(verifier):
    response = f"First\n```python\ndef f(xs):\n return 0\n```\nbetter:\n```python\n{SUM}\n```\ndone"
    assert extract_program(response) == SUM + "\n"
    assert reward(verifier, ONE, response) == 1.0
    assert extract_program(SUM) == SUM


def test_print_noise_does_not_change_the_verdict(verifier):
    noise = "print('[\"3\", \"5\"]' * 10000)\nimport sys\nsys.stderr.write('x')\n"
    assert reward(verifier, ONE, noise + SUM.replace("return", "print(xs); return")) == 1.0


def test_infinite_loop_ends_at_the_processor_limit(verifier):
    start = time.monotonic()
    assert reward(verifier, ONE, "def f(xs):\n while True: pass") == 0.0
    assert time.monotonic() - start < 2.4 + 5


def test_sleeping_program_ends_at_the_wall_limit():
    verifier = ProgramVerifier(wall_seconds=0.3, workers=1)
    start = time.monotonic()
    assert reward(verifier, ONE, "import time\ntime.sleep(60)\n" + SUM) == 0.0
    assert time.monotonic() - start < 5
    verifier.close()


def test_memory_bomb_fails_and_the_next_program_runs(verifier):
    assert reward(verifier, ONE, "def f(xs):\n return len('x' * 10**9) * sum(xs)") == 0.0
    assert reward(verifier, ONE, SUM + "  # next") == 1.0


def test_huge_file_is_stopped(verifier):
    body = (
        "found = False\ntry:\n for _ in range(40): open('big', 'ab').write(b'x' * 2**20)\nexcept OSError: found = True"
    )
    assert probe(verifier, body) == 1.0


def test_writing_outside_the_own_folder_is_refused(verifier, tmp_path):
    target = tmp_path / "kept"
    target.write_text("kept")
    body = (
        f"import os\nfound = 0\nkept = {str(target)!r}\n"
        "for act in (lambda: open(kept, 'w'), lambda: os.remove(kept),"
        " lambda: open('../up', 'w'), lambda: os.mkdir('../dir')):\n try: act()\n except OSError: found += 1"
    )
    assert probe(verifier, body, 4) == 1.0
    assert target.read_text() == "kept"


def test_writing_in_the_own_folder_works(verifier):
    assert probe(verifier, "open('a', 'w').write('1')\nfound = open('a').read() == '1'") == 1.0


def test_sockets_fail_under_either_isolation(verifier):
    assert verifier.isolation in ("network namespace", "audit hook")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        body = (
            "import socket\nfound = False\n"
            f"try: socket.create_connection(('127.0.0.1', {port}), 1)\nexcept OSError: found = True"
        )
        assert probe(verifier, body) == 1.0


def test_refused_namespaces_leave_the_audit_hook_and_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(program_runner.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(unshare=lambda flags: -1))
    assert program_runner.enter_namespaces() == "audit hook"
    hook = program_runner.guard(str(tmp_path))
    for event in ("socket.__new__", "socket.connect", "subprocess.Popen", "os.system", "os.kill"):
        with pytest.raises(PermissionError):
            hook(event, ())
    hook("open", (str(tmp_path / "mine"), "w", os.O_WRONLY))
    with pytest.raises(PermissionError):
        hook("open", (str(tmp_path.parent / "not_mine"), "w", os.O_WRONLY))


def test_subprocesses_and_foreign_libraries_are_refused(verifier):
    body = (
        "import os, ctypes, subprocess\nfound = 0\n"
        "for act in (lambda: os.system('true'), lambda: subprocess.run(['true']), os.fork,"
        " lambda: ctypes.CDLL(None)):\n"
        " try: act()\n except OSError: found += 1"
    )
    assert probe(verifier, body, 4) == 1.0


def test_environment_and_folder_are_empty(verifier):
    assert probe(verifier, "import os\nfound = [dict(os.environ), os.listdir('.')]", [{}, []]) == 1.0


def test_folder_is_fresh_for_every_program(verifier):
    for number in range(4):
        body = f"import os\nfound = os.listdir('.')\nopen('left{number}', 'w').close()"
        assert probe(verifier, body, []) == 1.0


def test_no_descriptor_leads_out(verifier):
    body = (
        "import os, fcntl\nfound = []\nfor number in range(100):\n"
        " try: fcntl.fcntl(number, fcntl.F_GETFD); found.append(number)\n except OSError: pass"
    )
    assert probe(verifier, body, [0, 1, 2, 3]) == 1.0


def test_expected_outputs_are_not_in_the_program_process(verifier):
    body = (
        "import gc, sys\nsecret = 'never-sent-' + '77'\nfound = False\nframe = sys._getframe()\n"
        "while frame:\n found = found or secret in repr({**frame.f_locals, 'secret': 0})\n"
        " frame = frame.f_back"
    )
    case = function([[], []], [False, "never-sent-77"])
    assert reward(verifier, case, "def f():\n " + "\n ".join(body.splitlines()) + "\n return found") == 0.0
    assert probe(verifier, body, False) == 1.0


def test_program_that_stops_its_runner_counts_nothing_and_the_runner_returns():
    verifier = ProgramVerifier(workers=1, wall_seconds=1)
    assert reward(verifier, ONE, SUM) == 1.0
    pool = verifier._pool
    runner = pool._runners.get()
    os.kill(runner._process.pid, signal.SIGKILL)
    runner._process.wait()
    pool._runners.put(runner)
    assert verifier.verify([ONE] * 2, [SUM + " # lost", SUM + " # second"]) == [0.0, 1.0]
    verifier.close()


def test_equal_programs_run_once_and_verdicts_are_kept():
    verifier = ProgramVerifier(workers=2)
    other = function([[[2, 2]]], [5])
    rewards = verifier.verify([ONE, ONE, other, ONE], [SUM, SUM, SUM, "def f(xs):\n return 0"])
    assert rewards == [1.0, 1.0, 0.0, 0.0]
    assert verifier.programs_run == 3
    assert verifier.verify([other, ONE], [SUM, SUM]) == [0.0, 1.0]
    assert verifier.programs_run == 3
    verifier.close()


def test_stdin_programs_are_compared_line_by_line(verifier):
    case = prompt({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\nok\n", "7\nok"]})
    right = "a, b = map(int, input().split())\nif __name__ == '__main__':\n print(a + b, ' ')\n print('ok')"
    assert reward(verifier, case, right) == 1.0
    assert reward(verifier, case, right + "\nexit()") == 1.0
    assert reward(verifier, case, right + "\nexit(3)") == 0.0
    assert reward(verifier, case, "print(3)\nprint('ok')") == 0.0
    assert (
        reward(verifier, case, "import sys\nn = sum(map(int, sys.stdin.read().split()))\nprint(n)\nprint('ok')") == 1.0
    )


def test_verl_string_arguments_are_one_json_a_line(verifier):
    case = function(["[1, 2]\n3", "[]\n0"], ["6", "0"])
    assert reward(verifier, case, "def f(xs, y):\n return sum(xs) + y") == 1.0
    assert reward(verifier, case, "class Solution:\n def f(self, xs, y):\n  return sum(xs) + y") == 1.0


def test_values_are_compared_as_json(verifier):
    case = function([[1]], [[[1, 2], {"a": 0.5}]])
    assert reward(verifier, case, "def f(x):\n return ((1, 2), {'a': 1 - 0.5 + 1e-9})") == 1.0
    assert reward(verifier, case, "def f(x):\n return ((1, 2), {'a': 0.6})") == 0.0
    assert reward(verifier, function([[1]], [1.5]), "def f(x):\n return 10**400") == 0.0
    assert reward(verifier, function([[1]], [[4]]), "def f(x):\n return 4") == 1.0


def test_copies_and_pickles_start_their_own_runners(verifier):
    assert reward(verifier, ONE, SUM) == 1.0
    for twin in (copy.deepcopy(verifier), pickle.loads(pickle.dumps(verifier))):
        assert (twin.wall_seconds, twin.memory_mb, twin._pool) == (2.5, 256, None)
        assert reward(twin, ONE, SUM) == 1.0
        twin.close()


def test_closed_verifier_leaves_no_process_or_folder_and_can_start_again():
    verifier = ProgramVerifier(workers=1)
    reward(verifier, ONE, SUM)
    runner = verifier._pool._runners.get()
    verifier._pool._runners.put(runner)
    verifier.close()
    assert runner._process.returncode is not None
    assert not os.path.exists(runner._folder)
    assert reward(verifier, ONE, SUM + " # again") == 1.0
    verifier.close()


def test_killed_trainer_leaves_no_runner_and_no_folder(tmp_path):
    code = (
        "import os; from gopd_lightning.verifiers import ProgramVerifier\n"
        "ProgramVerifier(workers=1).isolation\nos.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    deadline = time.monotonic() + 20
    while os.listdir(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "no answer"),
        ("", "no answer"),
        ("{not json", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ({"inputs": [], "outputs": []}, "at least one test"),
        ({"inputs": ["1", "2"], "outputs": ["1"]}, "2 inputs but 1 outputs"),
        ({"fn_name": "f", "inputs": [3], "outputs": [3]}, "neither a list"),
        ({"fn_name": "f", "inputs": ["[1"], "outputs": [3]}, "not valid JSON"),
    ],
)
def test_unusable_tests_are_refused_by_row(verifier, answer, why):
    with pytest.raises(InputError, match=rf"rows\.jsonl row 7: .*{why}") as error:
        verifier.check(prompt(answer))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("limit", ["cpu_seconds", "wall_seconds", "memory_mb", "workers"])
@pytest.mark.parametrize("value", [0, -1])
def test_limits_must_be_positive(limit, value):
    with pytest.raises(InputError, match=limit):
        ProgramVerifier(**{limit: value})


def test_program_verifier_fits_the_protocol(verifier):
    assert isinstance(verifier, Verifier)
    verifier.check(ONE)
