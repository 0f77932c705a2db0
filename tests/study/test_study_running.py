"""Runs wait for what they need, go on where they were stopped, and a failure stops nothing else."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs_of_commands import design, program

from study.running import Runner


@pytest.fixture(autouse=True)
def signals_put_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ran(*runs, work):
    runner = Runner(design(work, *runs), {run.name for run in runs})
    runner.run()
    return runner


def test_a_run_waits_for_what_it_needs(tmp_path):
    needed = tmp_path / "a" / "done"
    last = program(tmp_path, "b", f"assert pathlib.Path({str(needed)!r}).exists()", needs=["a"])
    assert ran(last, program(tmp_path, "a", "import time; time.sleep(0.3)"), work=tmp_path).failures == {}
    record = json.loads((tmp_path / "b" / "record.json").read_text())
    assert record[0]["command"].startswith("python -c")
    assert record[0]["seconds"] > 0


def test_two_runs_go_side_by_side(tmp_path):
    began = time.time()
    ran(*(program(tmp_path, name, "import time; time.sleep(1.5)") for name in "ab"), work=tmp_path)
    assert time.time() - began < 2.7


def test_what_is_done_is_not_run_again(tmp_path, capsys):
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    for _ in range(2):
        ran(program(tmp_path, "a", count), work=tmp_path)
    assert (tmp_path / "count").read_text() == "x"
    assert "1 of 1 runs are there already" in capsys.readouterr().out


def test_a_command_whose_result_is_there_is_not_run_again_after_a_kill(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "done").write_text("x")
    assert ran(program(tmp_path, "a", "raise SystemExit(3)"), work=tmp_path).failures == {}


def test_a_failure_is_named_with_its_last_line_and_what_needs_it_is_not_run(tmp_path):
    broken = program(tmp_path, "a", "raise ValueError('no weights')")
    runner = ran(broken, program(tmp_path, "b", "", needs=["a"]), program(tmp_path, "c", ""), work=tmp_path)
    assert runner.failures["a"].endswith("ended with status 1: ValueError: no weights")
    assert runner.failures["b"] == "waits for a run that failed"
    assert (tmp_path / "c" / "record.json").exists()


def test_a_command_without_its_result_has_failed(tmp_path):
    run = program(tmp_path, "a", "raise SystemExit(0)")
    assert "ended with status 0" in ran(run, work=tmp_path).failures["a"]


def test_progress_is_one_line_a_run_with_rate_and_time_to_go(tmp_path, capsys):
    ran(program(tmp_path, "a", ""), work=tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("1/1")]
    assert "a minute" in line
    assert "minutes to go" in line


STOPPED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from runs_of_commands import design, program
from study.running import Runner

text = '''
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("saved").write_text("x"), sys.exit()))
pathlib.Path("up").write_text("x")
time.sleep(30)
'''
Runner(design(Path("work"), program(Path("work"), "a", text)), {{"a"}}).run()
"""


def test_sigterm_lets_running_commands_stop_by_themselves(tmp_path):
    here = Path(__file__).parent
    script = STOPPED.format(paths=[str(here), str(here.parents[1])])
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    while not (tmp_path / "up").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(20) == 130
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "work" / "a" / "record.json").exists()
