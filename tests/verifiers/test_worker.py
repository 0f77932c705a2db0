"""Worker processes: answers in order, deadlines, deaths and new starts."""

import os
import subprocess
import sys
import time

import pytest

from gopd_lightning.verifiers import worker
from gopd_lightning.verifiers.worker import Worker, WorkerPool

# Echoes; "sleep", "die", "nonsense", "huge" and "deep" misbehave, "deaf" never reads again, "child" leaves one behind.
SCRIPT = """
import json, os, struct, subprocess, sys, time
def send(body):
    os.write(1, struct.pack('>I', len(body)) + body)
send(b'{"ready": true}')
while head := sys.stdin.buffer.read(4):
    message = json.loads(sys.stdin.buffer.read(struct.unpack('>I', head)[0]))
    do = message.get('do')
    if do == 'sleep': time.sleep(60)
    if do == 'die': os._exit(1)
    if do == 'leave': send(b'{}'); os._exit(1)
    if do == 'nonsense': send(b'not json')
    if do == 'huge': os.write(1, b'\\xff' * 4)
    if do == 'deep': send(b'[' * 10**5 + b']' * 10**5)
    if do == 'deaf': send(b'{}'); time.sleep(60)
    if do == 'child': send(json.dumps({'pid': subprocess.Popen(['sleep', '60']).pid}).encode())
    if do is None: send(json.dumps({'echo': message, 'pid': os.getpid(), 'folder': os.getcwd()}).encode())
"""


def start() -> Worker:
    return Worker(lambda folder: [sys.executable, "-c", SCRIPT])


@pytest.fixture
def pool():
    made = WorkerPool(start, 1)
    yield made
    made.close()


def ask(pool, message, seconds=30.0):
    return pool.ask([(message, seconds)])[0]


def ended(pid, seconds=5.0):
    deadline = time.monotonic() + seconds
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    return not os.path.exists(f"/proc/{pid}")


def test_answers_come_in_the_order_of_the_messages():
    pool = WorkerPool(start, 2)
    found = pool.ask([({"number": number}, 30.0) for number in range(9)])
    assert [answer["echo"]["number"] for answer in found] == list(range(9))
    assert pool.hello() == {"ready": True}
    pool.close()


def test_late_worker_is_killed_and_another_takes_over(pool):
    before = ask(pool, {})["pid"]
    assert ask(pool, {"do": "sleep"}, 0.2) == {"error": "the worker does not answer", "late": True}
    assert ended(before)
    assert ask(pool, {})["pid"] != before


@pytest.mark.parametrize("do", ["die", "nonsense", "huge", "deep"])
def test_worker_that_dies_or_talks_nonsense_costs_one_message(pool, do):
    found = pool.ask([({"do": do}, 30.0), ({}, 30.0)])
    assert "worker" in found[0]["error"]
    assert "late" not in found[0]
    assert found[1]["echo"] == {}


def test_worker_that_died_while_idle_costs_no_message(pool):
    assert ask(pool, {"do": "leave"}) == {}
    time.sleep(0.2)
    assert ask(pool, {})["echo"] == {}


def test_worker_that_does_not_read_is_late_and_blocks_nobody(pool):
    assert ask(pool, {"do": "deaf"}) == {}
    started = time.monotonic()
    assert ask(pool, {"text": "x" * 10**7}, 0.3)["late"]
    assert time.monotonic() - started < 10


def test_large_messages_pass(pool):
    text = "x" * 10**7
    assert ask(pool, {"text": text})["echo"]["text"] == text


def test_processes_of_a_worker_end_with_it(pool):
    child = ask(pool, {"do": "child"})["pid"]
    pool.close()
    assert ended(child)


def test_closed_worker_leaves_no_folder_and_one_without_starts_at_the_root():
    one = start()
    folder = one.ask({}, 30.0)["folder"]
    assert os.path.isdir(folder)
    one.close()
    assert not os.path.exists(folder)
    other = Worker(lambda folder: [sys.executable, "-c", SCRIPT], own_folder=False)
    assert other.ask({}, 30.0)["folder"] == "/"
    other.close()


def test_worker_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(worker, "START_SECONDS", 0.3)
    for command in (["/no/such/program"], ["true"], ["sleep", "60"]):
        with pytest.raises(OSError):
            Worker(lambda folder, command=command: command, dict(os.environ))
    assert "error" in ask(WorkerPool(lambda: Worker(lambda folder: ["/no/such/program"]), 1), {})


def test_failed_start_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.tempfile, "tempdir", str(tmp_path))
    for command in (["/no/such/program"], ["true"]):
        with pytest.raises(OSError):
            Worker(lambda folder, command=command: command, dict(os.environ))
    assert list(tmp_path.iterdir()) == []


def test_forked_copy_ends_nothing(pool):
    pid = ask(pool, {})["pid"]
    child = os.fork()
    if child == 0:
        pool.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert ask(pool, {})["pid"] == pid


def test_worker_gets_only_the_environment_that_it_was_given(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    code = SCRIPT.replace("'folder': os.getcwd()", "'secret': os.environ.get('SECRET')")
    one = Worker(lambda folder: [sys.executable, "-c", code])
    assert one.ask({}, 30.0)["secret"] is None
    one.close()
    assert subprocess.run(["sh", "-c", "echo $SECRET"], capture_output=True, check=True).stdout == b"x\n"
