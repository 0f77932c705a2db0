"""Worker processes that grade: they start when needed, are killed when they overrun, and start again.

A worker is any command that speaks frames on its stdin and stdout: four bytes of length, big endian, then JSON.
It says hello with one frame when it is ready, and answers every frame with one.
"""

import contextlib
import json
import os
import queue
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

START_SECONDS = 60.0
LARGEST_FRAME = 2**29  # bytes

Message = dict[str, Any]


class Worker:
    """One worker process. Not thread-safe: a thread uses it alone.

    Args:
        command: The command, from the folder that it will be started in.
        environment: All of its environment variables.
        own_folder: Give it an empty folder to work in, which goes with it; else it starts in "/".

    Raises:
        OSError: It does not start, or does not say hello.
    """

    def __init__(
        self,
        command: Callable[[str], Sequence[str]],
        environment: dict[str, str] | None = None,
        own_folder: bool = True,
    ) -> None:
        self._owner = os.getpid()
        self._folder = tempfile.mkdtemp(prefix="gopd-worker-") if own_folder else "/"
        try:
            self._process = self._launched(command(self._folder), environment or {})
        except OSError:
            self._remove_folder()
            raise
        try:
            self.hello = self._receive(time.monotonic() + START_SECONDS)
        except OSError:
            self.close()
            raise

    def _launched(self, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        # A session of its own: Ctrl-C in the terminal is for the trainer, which may still want to grade.
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=self._folder,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def ask(self, message: Message, seconds: float) -> Message:
        """Send a message and wait for its answer.

        Args:
            message: What the worker understands.
            seconds: Longest wait, in seconds.

        Returns:
            The worker's answer.

        Raises:
            TimeoutError: No answer in time; the worker is of no further use.
            OSError: It died or answers nonsense; it is of no further use.
        """
        deadline = time.monotonic() + seconds
        body = json.dumps(message).encode()
        self._send(struct.pack(">I", len(body)) + body, deadline)
        return self._receive(deadline)

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process with its group and remove its folder; a forked copy of this object leaves all alone."""
        if os.getpid() != self._owner:
            return
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder != "/":
            shutil.rmtree(self._folder, ignore_errors=True)

    def _send(self, data: bytes, deadline: float) -> None:
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            _wait_for(self._process.stdin.fileno(), select.POLLOUT, deadline)
            view = view[self._process.stdin.write(view) or 0 :]

    def _receive(self, deadline: float) -> Message:
        size = struct.unpack(">I", self._read(4, deadline))[0]
        if size > LARGEST_FRAME:
            raise OSError("unreadable frame from the worker")
        try:
            message = json.loads(self._read(size, deadline))
        except (ValueError, RecursionError) as error:
            raise OSError("unreadable frame from the worker") from error
        return message if isinstance(message, dict) else {}

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        data = bytearray()
        while len(data) < count:
            _wait_for(self._process.stdout.fileno(), select.POLLIN, deadline)
            piece = self._process.stdout.read(count - len(data))
            if not piece:
                raise OSError("the worker died")
            data += piece
        return bytes(data)


def _wait_for(number: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(number, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError("the worker does not answer")


class WorkerPool:
    """Several workers, each used by one thread at a time.

    Args:
        start: Starts one worker; called by the pool's own threads, for the first messages and after a death.
        workers: How many work side by side.
    """

    def __init__(self, start: Callable[[], Worker], workers: int) -> None:
        self.owner = os.getpid()
        self._start = start
        self._idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)  # started by the first message that finds it
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="gopd-worker")

    def hello(self) -> Message:
        """Start a worker if none is idle and return what it said when it was ready.

        Raises:
            OSError: It does not start.
        """
        return self._threads.submit(self._hello).result()

    def ask(self, messages: Sequence[tuple[Message, float]]) -> list[Message]:
        """Answer messages side by side.

        Args:
            messages: Pairs of a message and the seconds to wait for its answer.

        Returns:
            One answer a message, in order; {"error": text} where a worker died, {"error": text, "late": True}
            where it did not answer in time and was killed.
        """
        return list(self._threads.map(self._ask, messages))

    def close(self) -> None:
        """End all workers, for good."""
        if os.getpid() != self.owner:
            return
        self._threads.shutdown(wait=True)
        while not self._idle.empty():
            worker = self._idle.get()
            if worker is not None:
                worker.close()

    def _hello(self) -> Message:
        worker = self._idle.get()
        try:
            worker = self._ready(worker)
            return worker.hello
        finally:
            self._idle.put(worker)

    def _ready(self, worker: Worker | None) -> Worker:
        """A worker that runs: one that died while it was idle is replaced, so that no message is lost to it."""
        if worker is not None and not worker.alive():
            worker.close()
            worker = None
        return worker or self._start()

    def _ask(self, message: tuple[Message, float]) -> Message:
        worker = self._idle.get()
        try:
            worker = self._ready(worker)
            return worker.ask(*message)
        except OSError as error:  # TimeoutError is one
            if worker is not None:
                worker.close()
            worker = None
            return {"error": str(error), **({"late": True} if isinstance(error, TimeoutError) else {})}
        finally:
            self._idle.put(worker)
