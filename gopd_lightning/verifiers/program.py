"""Programs graded by hidden tests: the verifier; the programs themselves run in other processes."""

import contextlib
import hashlib
import json
import math
import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt
from gopd_lightning.verifiers.program_pool import Job, RunnerPool

_FENCE = re.compile(r"```(?:python|py)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_CACHE_SIZE = 16384
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class ProgramTests:
    """The tests of one prompt.

    Attributes:
        fn_name: Function to call; None for programs that read stdin and write stdout.
        inputs: One entry a test: the list of call arguments, or the text of stdin.
        outputs: One entry a test: the expected return value, or the expected text of stdout.
    """

    fn_name: str | None
    inputs: list[Any]
    outputs: list[Any]


def extract_program(response: str) -> str:
    """The last fenced ```python block of a response, or all of it when there is no such fence.

    Args:
        response: Response text.

    Returns:
        Python source; a block that was cut off before its closing fence counts.
    """
    blocks = _FENCE.findall(response)
    return str(blocks[-1]) if blocks else response


@lru_cache(maxsize=4096)
def parse_tests(answer: str) -> ProgramTests:
    """Read verl's ground truth for code.

    Args:
        answer: JSON text {"inputs": [...], "outputs": [...]} with an optional "fn_name".

    Returns:
        The tests.

    Raises:
        ValueError: The text is not such a JSON; the message says why.
    """
    tests = json.loads(answer)
    if not isinstance(tests, dict):
        raise ValueError("is not a JSON object")
    inputs, outputs, fn_name = tests.get("inputs"), tests.get("outputs"), tests.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs:
        raise ValueError('needs "inputs" and "outputs", two lists with at least one test')
    if len(inputs) != len(outputs):
        raise ValueError(f"has {len(inputs)} inputs but {len(outputs)} outputs")
    if not fn_name:
        return ProgramTests(None, [_text(value) for value in inputs], [_text(value) for value in outputs])
    pairs = [_call(*pair) for pair in zip(inputs, outputs, strict=True)]
    return ProgramTests(str(fn_name), [arguments for arguments, _ in pairs], [value for _, value in pairs])


def _text(value: Any) -> str:
    return "\n".join(str(line) for line in value) if isinstance(value, list) else str(value)


def _call(arguments: Any, value: Any) -> tuple[list[Any], Any]:
    """One call; a string of arguments is JSON, one argument a line, and so then is the expected value."""
    if isinstance(arguments, list):
        return arguments, value
    if not isinstance(arguments, str):
        raise ValueError("has an input that is neither a list of arguments nor JSON lines")
    parsed = [json.loads(line) for line in arguments.splitlines() if line.strip()]
    return parsed, json.loads(value) if isinstance(value, str) else value


class ProgramVerifier:
    """Reward 1.0 when the program of the response passes all tests of its prompt, else 0.0.

    Programs run in `workers` runner processes (see `program_runner`), which start with the first batch.
    Limits hold for one run of a program: all calls of a function task, or one stdin test.
    """

    _verdicts: OrderedDict[bytes, float]
    _pool: RunnerPool | None
    _finalizer: "weakref.finalize[[], ProgramVerifier] | None"

    def __init__(
        self, cpu_seconds: float = 1.0, wall_seconds: float = 5.0, memory_mb: int = 512, workers: int = 2
    ) -> None:
        """Set the limits.

        Args:
            cpu_seconds: Processor time of one run, in seconds (the kernel rounds it up to whole ones).
            wall_seconds: Time of one run on the clock, in seconds.
            memory_mb: Address space of one run, in MiB.
            workers: Programs that run side by side.

        Raises:
            InputError: A limit is not positive.
        """
        limits = {
            "cpu_seconds": cpu_seconds,
            "wall_seconds": wall_seconds,
            "memory_mb": memory_mb,
            "workers": workers,
        }
        for name, value in limits.items():
            if not value > 0:
                raise InputError(f"ProgramVerifier.{name} is {value}; give a positive number")
        self.cpu_seconds = cpu_seconds
        self.wall_seconds = wall_seconds
        self.memory_mb = memory_mb
        self.workers = workers
        self._forget_runs()

    @property
    def isolation(self) -> str:
        """What keeps programs off the network: "network namespace" or "audit hook" (starts the runners)."""
        with self._lock:
            return self._running_pool().isolation

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
        except (ValueError, RecursionError) as error:
            raise InputError(f"{prompt.source}: answer {error}; mend the tests") from None

    def verify(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """Grade a batch; equal programs with equal tests run once.

        Args:
            prompts: One prompt a response.
            responses: Response texts.

        Returns:
            One reward, 0.0 or 1.0, a response.
        """
        cases = [(extract_program(text), prompt.answer or "") for prompt, text in zip(prompts, responses, strict=True)]
        keys = [_key(*case) for case in cases]
        with self._lock:
            new = {key: case for key, case in zip(keys, cases, strict=True) if key not in self._verdicts}
            verdicts = self._grade(new)
            verdicts.update((key, self._verdicts[key]) for key in keys if key in self._verdicts)
            self._remember(verdicts)
        return [verdicts[key] for key in keys]

    def close(self) -> None:
        """End the runner processes; a later `verify` starts new ones."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
            self._pool = self._finalizer = None

    def __getstate__(self) -> dict[str, Any]:
        names = ("cpu_seconds", "wall_seconds", "memory_mb", "workers")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_runs()

    def _forget_runs(self) -> None:
        self.programs_run = 0
        self._verdicts = OrderedDict()
        self._lock = threading.Lock()
        self._pool = None
        self._finalizer = None

    def _running_pool(self) -> RunnerPool:
        if self._pool is None or self._pool.owner != os.getpid():  # a forked process must not share pipes
            self._pool = RunnerPool(self.workers)
            self._finalizer = weakref.finalize(self, self._pool.close)
        return self._pool

    def _grade(self, cases: dict[bytes, tuple[str, str]]) -> dict[bytes, float]:
        if not cases:
            return {}
        tests = {key: parse_tests(answer) for key, (_, answer) in cases.items()}
        jobs = [self._job(cases[key][0], tests[key]) for key in cases]
        results = self._running_pool().run(jobs)
        self.programs_run += len(jobs)
        return {key: _reward(tests[key], result) for key, result in zip(cases, results, strict=True)}

    def _job(self, program: str, tests: ProgramTests) -> Job:
        limits = {name: getattr(self, name) for name in ("cpu_seconds", "wall_seconds", "memory_mb")}
        return {"program": program, "fn_name": tests.fn_name, "inputs": tests.inputs, **limits}

    def _remember(self, verdicts: dict[bytes, float]) -> None:
        self._verdicts.update(verdicts)
        for key in verdicts:
            self._verdicts.move_to_end(key)
        while len(self._verdicts) > _CACHE_SIZE:
            self._verdicts.popitem(last=False)


def _key(program: str, answer: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in (program, answer):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


def _reward(tests: ProgramTests, result: Job) -> float:
    outputs = result.get("outputs")
    if not isinstance(outputs, list) or len(outputs) != len(tests.outputs):
        return 0.0
    same = _same_value if tests.fn_name else _same_text
    return float(all(same(*pair) for pair in zip(outputs, tests.outputs, strict=True)))


def _same_text(printed: str, expected: str) -> bool:
    return _lines(printed) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _same_value(returned: Any, expected: Any) -> bool:
    """Compare a value (as JSON text) with the expected one, which verl's data may wrap in a list of one."""
    with contextlib.suppress(ValueError, TypeError, RecursionError, OverflowError):
        value = json.loads(returned)
        wrapped = isinstance(expected, list) and len(expected) == 1
        return _equal(value, expected) or (wrapped and _equal(value, expected[0]))
    return False


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(_equal, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(_equal(value[key], expected[key]) for key in value)
    if isinstance(value, float) or isinstance(expected, float):
        numbers = all(isinstance(one, int | float) for one in (value, expected))
        return numbers and math.isclose(value, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(value == expected)
