"""The worker processes of the math verifier: started when the first hard pair comes, killed when a pair overruns."""

import os
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gopd_lightning.verifiers.worker import Worker, WorkerPool

Pair = tuple[str, str]
Result = tuple[bool, str, str]
_SCRIPT = str(Path(__file__).with_name("process.py"))
_BATCH = 64


def _start() -> Worker:
    # -P: the script's own folder holds modules of gopd, which must not shadow others.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return Worker(lambda _: [sys.executable, "-P", _SCRIPT], environment, own_folder=False)


class MathPool:
    """Asks worker processes which formulas are equal; from any thread, and anew after a fork, copy or pickle.

    Args:
        seconds: Longest time for one question, in seconds.
        workers: Questions that are answered side by side.
    """

    _pool: WorkerPool | None
    _finalizer: "weakref.finalize[[], MathPool] | None"

    def __init__(self, seconds: float, workers: int) -> None:
        self.seconds = seconds
        self.workers = workers
        self._forget()

    def compare(self, questions: Sequence[Sequence[Pair]]) -> list[list[Result]]:
        """Compare formulas.

        Args:
            questions: Each a few pairs of ground truth and answer that are settled together, within the time limit.

        Returns:
            For every pair: whether its formulas are equal, one spelling for all that equal the answer ("" where
            there is none), and why they were not compared ("" where they were).

        Raises:
            OSError: No worker starts.
        """
        replies = self._ask([{"pairs": list(pairs)} for pairs in questions], self.seconds)
        return [_results(pairs, reply) for pairs, reply in zip(questions, replies, strict=True)]

    def parses(self, texts: Sequence[str]) -> list[bool]:
        """Whether formulas are mathematics.

        Args:
            texts: LaTeX formulas.

        Returns:
            One verdict a formula; False also where reading it takes too long.

        Raises:
            OSError: No worker starts.
        """
        parts = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
        replies = self._ask([{"parse": list(part)} for part in parts], self.seconds * 2)
        found: list[bool] = []
        for part, reply in zip(parts, replies, strict=True):
            alone = len(part) > 1 and "results" not in reply  # find the one at fault
            found += [self.parses([one])[0] for one in part] if alone else reply.get("results", [False])
        return found

    def close(self) -> None:
        """End the workers; the next question starts new ones."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
            self._pool = None
            self._finalizer = None

    def _ask(self, messages: Sequence[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
        if not messages:
            return []
        pool = self._running()
        pool.hello()  # raises where no worker starts: that is no fault of an answer
        replies = pool.ask([(message, seconds) for message in messages])
        for _ in range(self.workers):  # all may have died while idle: an answer fails only with a fresh worker
            again = [i for i, reply in enumerate(replies) if "error" in reply and "late" not in reply]
            for i, reply in zip(again, pool.ask([(messages[i], seconds) for i in again]), strict=True):
                replies[i] = reply
        return [self._plain(reply) for reply in replies]

    def _plain(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "error" not in reply:
            return reply
        late = f"not compared within {self.seconds:g} s"
        return {"error": late if "late" in reply else "not compared: its worker died, perhaps out of memory"}

    def _running(self) -> WorkerPool:
        if self._owner != os.getpid():  # a forked process must not share pipes, nor a lock that a thread held
            self._forget()
        with self._lock:
            if self._pool is None:
                self._pool = WorkerPool(_start, self.workers)
                self._finalizer = weakref.finalize(self, self._pool.close)
            return self._pool

    def __getstate__(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "workers": self.workers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._pool = None
        self._finalizer = None


def _results(pairs: Sequence[Pair], reply: dict[str, Any]) -> list[Result]:
    found = reply.get("results", [[False, "", reply.get("error", "")]] * len(pairs))
    return [(bool(same), str(spelling), str(why)) for same, spelling, why in found]
