"""Ways of testing a program: printed text, values, a canonical solution, test code.

Expected values and test code never enter the sandbox together with a model's program: what it printed or returned
comes out as data and is judged here, or by the trusted test code in a process of its own.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from gopd_lightning.verifiers.programs.answer import complete
from gopd_lightning.verifiers.programs.compare import same_json, same_text, same_value, short
from gopd_lightning.verifiers.programs.shapes import typed_inputs
from gopd_lightning.verifiers.sandbox.values import decode, encode

_LEFT_OUT = 8  # a canonical solution that fails on more inputs is broken
_LARGEST = 6 * 2**20  # bytes of JSON, all values of a problem together

Job = dict[str, Any]
Answer = dict[str, Any]
T = TypeVar("T")
# Yields jobs for the sandbox (program, fn_name, inputs, and perhaps reference_seconds: the processor time of the
# canonical solution on these inputs), is sent their answers, returns the result.
Steps = Generator[Job, Answer, T]


class TrustedCodeError(RuntimeError):
    """The trusted code of the tests failed, so that nothing can be said about a program."""


class ProgramTests(Protocol):
    """The tests of one prompt.

    Attributes:
        left_out: Tests that no program is given, and why.
    """

    left_out: Mapping[str, str] = {}

    def prepare(self) -> Steps[None]:
        """Run what is trusted and needed once per prompt (a canonical solution).

        Raises:
            TrustedCodeError: It failed.
        """
        return
        yield

    def grade(self, program: str) -> Steps[str]:
        """Run a program.

        Args:
            program: Python source.

        Returns:
            Why it fails; "" where it passes.
        """
        ...


class StdinTests(ProgramTests):
    """Programs that read stdin and write stdout, compared line by line."""

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.inputs = list(inputs)
        self.outputs = list(outputs)

    def grade(self, program: str) -> Steps[str]:
        """Run a program once a test."""
        answer = yield {"program": program, "fn_name": None, "inputs": self.inputs}
        return _first_fault(answer, range(len(self.inputs)), self._fault)

    def _fault(self, place: int, found: str) -> str:
        expected = self.outputs[place]
        return "" if same_text(found, expected) else _differs(f"test {place + 1}", expected.strip(), found.strip())


class CallTests(ProgramTests):
    """Functions whose values are given as JSON."""

    def __init__(self, fn_name: str, inputs: Sequence[Sequence[Any]], outputs: Sequence[Any]) -> None:
        self.fn_name = fn_name
        self.inputs = [encode(list(arguments)) for arguments in inputs]
        self.outputs = list(outputs)

    def grade(self, program: str) -> Steps[str]:
        """Run all calls in one process."""
        answer = yield {"program": program, "fn_name": self.fn_name, "inputs": self.inputs}
        return _first_fault(answer, range(len(self.inputs)), self._fault)

    def _fault(self, place: int, found: Any) -> str:
        value, expected = decode(found), self.outputs[place]
        return "" if same_json(value, expected) else _differs(f"test {place + 1}", expected, value)


class OracleTests(ProgramTests):
    """EvalPlus: functions whose values are those of the canonical solution, on base and then on plus inputs.

    A plus input on which the canonical solution itself breaks the limits is left out, and so are the plus inputs of
    the largest values where all values together are too large to leave the sandbox.
    """

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.left_out: dict[str, str] = {}
        self.entry_point = str(row["entry_point"])
        self.prompt = str(row["prompt"])
        self.solution = str(row["prompt"]) + str(row["canonical_solution"])
        self.tolerance = float(row["atol"])
        inputs = [*row["base_input"], *row["plus_input"]]  # a problem without plus inputs has {} there
        self.arguments = typed_inputs(inputs, str(row.get("assertion", "")), self.entry_point)
        self._base = range(len(row["base_input"]))
        self._plus = range(len(row["base_input"]), len(inputs))
        self._seconds = {True: 0.0, False: 0.0}  # of the canonical solution: base, plus
        self._expected: dict[int, Any] | None = None  # by place among all inputs

    def prepare(self) -> Steps[None]:
        """Run the canonical solution on all inputs, once."""
        if self._expected is not None:
            return
        found: dict[int, Any] = {}
        waiting = [list(stage) for stage in (self._plus, self._base) if stage]
        while waiting:
            places = waiting.pop()
            answer = yield self._job(self.solution, places)
            found |= zip(places, answer["outputs"], strict=False)
            self._seconds[places[0] in self._base] += float(answer.get("cpu_seconds", 0))
            rest = places[len(answer["outputs"]) :]
            if rest and len(json.dumps(answer["outputs"])) < _LARGEST // 4:
                self._leave_out(rest.pop(0), f"the canonical solution failed: {answer.get('error')}")
            waiting += filter(None, [rest])  # else perhaps nothing but too much at once: they get a run of their own
        self._leave_out_large(found)
        self._expected = {place: decode(found[place]) for place in sorted(found)}

    def grade(self, program: str) -> Steps[str]:
        """Run the calls with base inputs in one process, then those with plus inputs in another."""
        assert self._expected is not None, "grade comes after prepare"
        source = complete(self.prompt, program, self.entry_point)
        for stage in filter(None, (self._base, self._plus)):
            places = [place for place in stage if place in self._expected]
            answer = yield {**self._job(source, places), "reference_seconds": self._seconds[stage is self._base]}
            fault = _first_fault(answer, places, self._fault, self._name)
            if fault:
                return fault
        return ""

    def _job(self, source: str, places: Sequence[int]) -> Job:
        inputs = [encode(self.arguments[place]) for place in places]
        return {"program": source, "fn_name": self.entry_point, "inputs": inputs}

    def _name(self, place: int) -> str:
        return f"base test {place + 1}" if place in self._base else f"plus test {place - len(self._base) + 1}"

    def _fault(self, place: int, found: Any) -> str:
        assert self._expected is not None, "grade comes after prepare"
        value, expected = decode(found), self._expected[place]
        same = same_value(value, expected, self.tolerance, self.arguments[place], self.entry_point)
        return "" if same else _differs(self._name(place), expected, value)

    def _leave_out(self, place: int, reason: str) -> None:
        if place in self._base or len(self.left_out) == _LEFT_OUT:
            raise TrustedCodeError(f"{self._name(place)}: {reason}")
        self.left_out[self._name(place)] = reason

    def _leave_out_large(self, found: dict[int, Any]) -> None:
        sizes = {place: len(json.dumps(value)) for place, value in found.items()}
        while sum(sizes.values()) > _LARGEST:
            place = max(sizes, key=lambda place: (sizes[place], place))
            self._leave_out(place, f"its value takes {sizes[place]:,} bytes")
            del found[place], sizes[place]


class CheckTests(ProgramTests):
    """HumanEval: a function `check(candidate)` that asserts.

    The check runs once with the canonical solution, and its calls are recorded; a program then gets these calls
    alone. Where its values are not those of the canonical solution, the check runs again, with a candidate that
    gives back what the program returned. Checks that draw random arguments draw from a fixed seed, so that they
    are the same for every program.
    """

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.entry_point = str(row["entry_point"])
        self.prompt = str(row["prompt"])
        self.trusted = "\n".join([self.prompt + str(row["canonical_solution"]), str(row["test"]), _RECORD, _REPLAY])
        self._seconds = 0.0
        self._calls: list[Any] | None = None  # pairs of encoded arguments and canonical value

    def prepare(self) -> Steps[None]:
        """Record the calls of the check, once."""
        if self._calls is not None:
            return
        answer = yield {"program": self.trusted, "fn_name": "record_calls", "inputs": [[self.entry_point]]}
        calls = _trusted(answer, 1)[0]
        if not calls:
            raise TrustedCodeError("the check calls nothing")
        self._calls = [(arguments["value"], value) for arguments, value in calls]
        self._seconds = float(answer.get("cpu_seconds", 0))

    def grade(self, program: str) -> Steps[str]:
        """Run the recorded calls; where a value is new, ask the check about all of them."""
        assert self._calls is not None, "grade comes after prepare"
        source = complete(self.prompt, program, self.entry_point)
        inputs = [arguments for arguments, _ in self._calls]
        answer = yield {"program": source, "fn_name": self.entry_point, "inputs": inputs} | self._reference()
        found = answer["outputs"]
        new = [place for place, value in enumerate(found) if repr(value) != repr(self._calls[place][1])]
        if answer.get("error") or len(found) != len(inputs):
            return _first_fault(answer, range(len(inputs)), lambda place, value: "", _call_name)
        if not new:
            return ""
        table = [[_tuple(arguments), value] for arguments, value in zip(inputs, found, strict=True)]
        answer = yield {"program": self.trusted, "fn_name": "replay_calls", "inputs": [[table]]} | self._reference()
        if not answer.get("error"):
            return ""
        place = new[0]
        differs = _differs(f"call {place + 1}", decode(self._calls[place][1]), decode(found[place]))
        return f"{differs} ({answer['error']})"

    def _reference(self) -> Job:
        return {"reference_seconds": self._seconds}


_RECORD = """
def record_calls(name):
    import copy, random
    random.seed(0)
    calls = []
    def candidate(*arguments):
        kept = copy.deepcopy(arguments)
        value = globals()[name](*arguments)
        calls.append([kept, copy.deepcopy(value)])
        return value
    check(candidate)
    return calls
"""
# The canonical solution may leave out a call (`a == f(1) or b == f(1)`), hence the search.
_REPLAY = """
def replay_calls(calls):
    import copy, random
    random.seed(0)
    ahead = iter(calls)
    def candidate(*arguments):
        for kept, value in [*([call] if (call := next(ahead, None)) else []), *calls]:
            if kept == arguments:
                return copy.deepcopy(value)
        raise LookupError("the check makes another call than with the canonical solution")
    check(candidate)
"""


def _tuple(arguments: Any) -> Any:
    return {"$type": "tuple", "value": arguments}


def _trusted(answer: Answer, count: int) -> list[Any]:
    if answer.get("error") or len(answer["outputs"]) != count:
        raise TrustedCodeError(f"the canonical solution failed: {answer.get('error') or 'values are missing'}")
    outputs: list[Any] = answer["outputs"]
    return outputs


def _test_name(place: int) -> str:
    return f"test {place + 1}"


def _call_name(place: int) -> str:
    return f"call {place + 1}"


def _first_fault(
    answer: Answer,
    places: Sequence[int],
    fault: Callable[[int, Any], str],
    name: Callable[[int], str] = _test_name,
) -> str:
    """Why a program fails: the first wrong output, or the error that ended it.

    Args:
        answer: The sandbox's.
        places: Which tests ran.
        fault: Why the output of a test is wrong; "" where it is right.
        name: Name of a test, for the reason.
    """
    outputs = answer["outputs"][: len(places)]
    for place, output in zip(places, outputs, strict=False):
        try:
            reason = fault(place, output)
        except (ValueError, TypeError, RecursionError, AttributeError):
            reason = f"{name(place)}: unreadable output"
        if reason:
            return reason
    if error := answer.get("error"):
        return f"{name(places[len(outputs)])}: {error}" if 0 < len(outputs) < len(places) else str(error)
    return "" if len(outputs) == len(places) else f"{len(outputs)} outputs for {len(places)} tests"


def _differs(name: str, expected: Any, found: Any) -> str:
    return f"{name}: expected {short(expected)}, found {short(found)}"
