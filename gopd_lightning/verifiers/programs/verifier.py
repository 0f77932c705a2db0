"""Programs graded by hidden tests: the verifier; the programs themselves run in a sandbox."""

import hashlib
import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt, Verdict
from gopd_lightning.verifiers.programs.answer import extract_program
from gopd_lightning.verifiers.programs.formats import parse_tests
from gopd_lightning.verifiers.programs.grading import Answer, Job, Steps, TrustedCodeError
from gopd_lightning.verifiers.protocol import Verifier
from gopd_lightning.verifiers.sandbox.pool import describe, program_pool
from gopd_lightning.verifiers.worker import WorkerPool

_CACHE_SIZE = 16384
_GRACE_SECONDS = 10.0
_SLOWER = 4  # a program may take this much longer than the canonical solution, whatever the limit
_WALL_PER_CPU = 10  # the machine may be busy with other things
_TRUSTED_CPU_SECONDS = 300.0
_NOTHING: Job = {"program": "", "fn_name": None, "inputs": [""]}

K = TypeVar("K")
T = TypeVar("T")


class ProgramVerifier(Verifier):
    """Reward 1.0 when the program of the response passes all tests of its prompt, else 0.0.

    The answer of a prompt holds the tests, in any format of `parse_tests`. Limits hold for one run of a program: all
    calls of a function task, or one stdin test. Programs run in `workers` sandboxed processes, which start with the
    first batch.
    """

    _verdicts: OrderedDict[bytes, Verdict]
    _pool: WorkerPool | None
    _finalizer: "weakref.finalize[[], ProgramVerifier] | None"

    def __init__(
        self,
        cpu_seconds: float = 1.0,
        wall_seconds: float = 20.0,
        memory_mb: int = 512,
        workers: int = 2,
        allow_weak_sandbox: bool = False,
    ) -> None:
        """Set the limits.

        Args:
            cpu_seconds: Processor time of one run, in seconds; where a canonical solution is at hand, four times
                its time if that is more.
            wall_seconds: Time of one run on the clock, in seconds: a backstop for programs that sleep.
            memory_mb: Memory of one run, in MiB.
            workers: Programs that run side by side.
            allow_weak_sandbox: Go on where the machine refuses full isolation.

        Raises:
            InputError: A limit is not positive.
        """
        limits = {"cpu_seconds": cpu_seconds, "wall_seconds": wall_seconds, "memory_mb": memory_mb, "workers": workers}
        for name, value in limits.items():
            if not value > 0:
                raise InputError(f"ProgramVerifier.{name} is {value}; give a positive number")
        self.cpu_seconds = cpu_seconds
        self.wall_seconds = wall_seconds
        self.memory_mb = memory_mb
        self.workers = workers
        self.allow_weak_sandbox = allow_weak_sandbox
        self._forget_runs()

    @property
    def programs_run(self) -> int:
        """How many programs ran, those of the tests not counted."""
        return self._runs

    def start(self) -> str:
        """Start the sandbox.

        Returns:
            Which sandbox is in force.

        Raises:
            InputError: This machine has only the weak one, and it was not allowed.
        """
        with self._lock:
            return describe(str(self._running_pool().hello()["sandbox"]))

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt whose tests are missing or malformed.

        Args:
            prompt: A prompt that will be graded.

        Raises:
            InputError: See above; the message says what is wrong.
        """
        if not prompt.answer:
            raise InputError(f"{prompt.source}: no answer; a code row needs its tests as JSON")
        try:
            parse_tests(prompt.answer)
        except json.JSONDecodeError as error:
            raise InputError(f"{prompt.source}: answer is not valid JSON ({error}); mend the tests") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{prompt.source}: answer {error}; mend the tests") from None

    def verify(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Grade a batch; equal programs with equal tests run once.

        Args:
            prompts: One prompt a response.
            responses: Response texts.

        Returns:
            One verdict a response, its reward 0.0 or 1.0.
        """
        cases = [(extract_program(text), prompt.answer or "") for prompt, text in zip(prompts, responses, strict=True)]
        keys = [_digest(program) + _answer_digest(answer) for program, answer in cases]
        with self._lock:
            new = {key: case for key, case in zip(keys, cases, strict=True) if key not in self._verdicts}
            verdicts = self._grade(new)
            verdicts.update((key, self._verdicts[key]) for key in keys if key in self._verdicts)
            self._remember(verdicts)
        return [verdicts[key] for key in keys]

    def close(self) -> None:
        """End the sandboxed processes; a later `verify` starts new ones."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
            self._pool = self._finalizer = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_runs()

    def _forget_runs(self) -> None:
        self._runs = 0
        self._verdicts = OrderedDict()
        self._lock = threading.Lock()
        self._pool = None
        self._finalizer = None

    def _running_pool(self) -> WorkerPool:
        if self._pool is None or self._pool.owner != os.getpid():  # a forked process must not share pipes
            self._pool = program_pool(self.workers, self.allow_weak_sandbox)
            self._finalizer = weakref.finalize(self, self._pool.close)
        return self._pool

    def _remember(self, verdicts: Mapping[bytes, Verdict]) -> None:
        kept = {key: verdict for key, verdict in verdicts.items() if not verdict.crashed}
        self._verdicts.update(kept)
        for key in kept:
            self._verdicts.move_to_end(key)
        while len(self._verdicts) > _CACHE_SIZE:
            self._verdicts.popitem(last=False)

    def _grade(self, cases: Mapping[bytes, tuple[str, str]]) -> dict[bytes, Verdict]:
        """Prepare the tests that come up for the first time, then run the programs."""
        programs = {key: program for key, (program, _) in cases.items() if program.strip()}
        tests = {key: parse_tests(cases[key][1]) for key in programs}
        failures = self._run({id(one): one.prepare() for one in tests.values()}, trusted=True)
        runs = {key: tests[key].grade(program) for key, program in programs.items() if failures[id(tests[key])] is None}
        self._runs += len(runs)
        found: dict[bytes, str | Exception | None] = {key: failures[id(one)] for key, one in tests.items()}
        found |= self._run(runs)
        return {key: _verdict(program, found.get(key, "no program")) for key, (program, _) in cases.items()}

    def _limited(self, job: Job, trusted: bool) -> Job:
        """The job with its limits."""
        rest = dict(job)
        cpu = max(self.cpu_seconds, _SLOWER * rest.pop("reference_seconds", 0.0), _TRUSTED_CPU_SECONDS * trusted)
        wall = max(self.wall_seconds, _WALL_PER_CPU * cpu)
        return {**rest, "cpu_seconds": cpu, "wall_seconds": wall, "memory_mb": self.memory_mb}

    def _run(self, steps: Mapping[K, Steps[T]], trusted: bool = False) -> dict[K, T | Exception]:
        """Drive several gradings side by side: every one's next job, until all have a result."""
        results: dict[K, T | Exception] = {}
        answers: dict[K, Answer | None] = dict.fromkeys(steps)
        while answers:
            jobs: dict[K, Job] = {}
            for key, answer in answers.items():
                try:
                    if answer is not None and "outputs" not in answer:
                        raise TrustedCodeError(f"the sandbox failed: {answer['error']}")
                    jobs[key] = self._limited(steps[key].send(answer), trusted)  # type: ignore[arg-type]
                except StopIteration as stop:
                    results[key] = stop.value
                except TrustedCodeError as error:
                    results[key] = error
            answers = dict(zip(jobs, self._ask(list(jobs.values())), strict=True))
        return results

    def _ask(self, jobs: Sequence[Job]) -> list[Answer]:
        """Answers of the sandbox; one without outputs is a failure of the sandbox itself.

        A job that loses its worker gets another one. Where that is lost too, it is the program's fault, unless an
        empty program fares no better.
        """
        if not jobs:
            return []
        answers = self._running_pool().ask([_message(job) for job in jobs])
        works = True
        for place, answer in enumerate(answers):
            if "outputs" in answer or not works:
                continue
            answers[place] = self._running_pool().ask([_message(jobs[place])])[0]
            if "outputs" not in answers[place] and (works := self._works()):
                answers[place] = {"outputs": [], "error": f"killed: {answers[place]['error']}"}
        return answers

    def _works(self) -> bool:
        """Whether the sandbox runs an empty program."""
        job = self._limited(_NOTHING, trusted=True)
        return "outputs" in self._running_pool().ask([_message(job)])[0]


def _message(job: Job) -> tuple[Job, float]:
    """A job with the seconds to wait for it: its limits are kept inside, this is for a worker that does not answer."""
    runs = 1 if job["fn_name"] else len(job["inputs"])
    return job, runs * job["wall_seconds"] + _GRACE_SECONDS


def _verdict(program: str, found: str | Exception | None) -> Verdict:
    """A verdict from why a program failed ("" where it did not), or from what kept it from being judged."""
    answer = program if program.strip() else None
    if isinstance(found, Exception):
        return Verdict(reward=0.0, answer=answer, reason=str(found), crashed=True)
    return Verdict(reward=0.0 if found else 1.0, answer=answer, reason=found or "")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


_answer_digest = lru_cache(maxsize=1024)(_digest)
