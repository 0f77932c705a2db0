"""The formats in which `Prompt.answer` gives a program's tests."""

import ast
import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gopd_lightning.verifiers.programs.grading import CallTests, CheckTests, OracleTests, ProgramTests, StdinTests


@lru_cache(maxsize=1024)
def parse_tests(answer: str) -> ProgramTests:
    """Read the tests of a prompt.

    Args:
        answer: JSON text. verl, Eurus, APPS, LiveCodeBench: {"inputs", "outputs"} and, for functions, "fn_name".
            HumanEval: {"entry_point", "prompt", "canonical_solution", "test"}. EvalPlus: {"entry_point", "prompt",
            "canonical_solution", "base_input", "plus_input", "atol"} and perhaps "assertion".

    Returns:
        The tests.

    Raises:
        ValueError: The text is nothing of this; the message says why.
    """
    row = _row(answer)
    if "base_input" in row:
        return _evalplus(row)
    if "entry_point" in row:
        tests = _checked(row, ("test",))
        _must_define(str(tests["test"]), "check", "test")
        return CheckTests(tests)
    if "inputs" in row or "outputs" in row:
        return _verl(row)
    keys = ", ".join(map(repr, list(row)[:6])) or "nothing"
    raise ValueError(f'is in no known format: it needs "inputs" and "outputs", "test", or "base_input"; it has {keys}')


def canonical(answer: str) -> str | None:
    """The canonical solution that comes with the tests of a prompt.

    Args:
        answer: JSON text, as for `parse_tests`.

    Returns:
        Python source, the prompt's code included; None where there is none.

    Raises:
        ValueError: The text is not a JSON object.
    """
    row = _row(answer)
    return str(row["prompt"]) + str(row["canonical_solution"]) if "canonical_solution" in row else None


def entry_point(answer: str) -> str | None:
    """Name of the function that the tests of a prompt call; None for programs that read stdin.

    Args:
        answer: JSON text, as for `parse_tests`.

    Raises:
        ValueError: The text is not a JSON object.
    """
    row = _row(answer)
    name = row.get("entry_point") or row.get("fn_name")
    return str(name) if name else None


def livecodebench_answer(row: Mapping[str, Any]) -> str:
    """The tests of a row of LiveCodeBench in verl's form.

    Args:
        row: Its `public_test_cases` (JSON), `private_test_cases` (JSON, or base64 of zlib of a pickled JSON text) and
            `metadata` (JSON with `func_name` where a function is asked for).

    Returns:
        JSON text {"inputs", "outputs", "fn_name"}, public tests first.

    Raises:
        ValueError: A field cannot be read; the message says which.
    """
    tests = [*_test_cases(row, "public_test_cases"), *_test_cases(row, "private_test_cases")]
    kinds = {str(test.get("testtype")) for test in tests}
    if not kinds <= {"stdin", "functional"} or len(kinds) != 1:
        raise ValueError(f"testtype must be stdin or functional in all tests, found {sorted(kinds)}")
    metadata = json.loads(row["metadata"] or "{}")
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    if kinds == {"functional"} and not name:
        raise ValueError("metadata names no func_name for functional tests")
    inputs, outputs = ([str(test[key]) for test in tests] for key in ("input", "output"))
    return json.dumps({"inputs": inputs, "outputs": outputs, "fn_name": name if kinds == {"functional"} else None})


def _test_cases(row: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    text = str(row[field])
    try:
        tests = json.loads(text if text.lstrip().startswith("[") else _unpacked(text))
    except (ValueError, TypeError, EOFError, IndexError, binascii.Error, zlib.error, pickle.UnpicklingError) as error:
        raise ValueError(f"{field}: {error}") from error
    if not isinstance(tests, list) or not all(
        isinstance(test, dict) and {"input", "output"} <= {*test} for test in tests
    ):
        raise ValueError(f"{field} is no list of tests with input and output")
    return tests


def _unpacked(text: str) -> str:
    packed = zlib.decompress(base64.b64decode(text, validate=True))
    content = _TextOnly(io.BytesIO(packed)).load()
    if not isinstance(content, str):
        raise ValueError(f"the pickle holds a {type(content).__name__}, not a text")
    return content


class _TextOnly(pickle.Unpickler):
    """An unpickler that makes plain data only: any class or function in the pickle is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"the pickle asks for {module_name}.{global_name}; only a text is allowed")


def _row(answer: str) -> dict[str, Any]:
    """The JSON object; some files hold a JSON text of it inside a JSON text."""
    row = json.loads(answer)
    if isinstance(row, str):
        row = json.loads(row)
    if not isinstance(row, dict):
        raise ValueError("is not a JSON object")
    return row


def _checked(row: dict[str, Any], more: tuple[str, ...]) -> dict[str, Any]:
    missing = [key for key in ("entry_point", "prompt", "canonical_solution", *more) if row.get(key) is None]
    if missing:
        raise ValueError(f'lacks "{missing[0]}"')
    _must_define(str(row["prompt"]) + str(row["canonical_solution"]), str(row["entry_point"]), "canonical_solution")
    return row


def _must_define(source: str, name: str, field: str) -> None:
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f'has a "{field}" that is not Python ({error.msg})') from error
    if not any(isinstance(one, ast.FunctionDef) and one.name == name for one in statements):
        raise ValueError(f'has a "{field}" that does not define the function {name}')


def _evalplus(row: dict[str, Any]) -> OracleTests:
    _checked(row, ("plus_input", "atol"))
    if not isinstance(row["base_input"], list) or not row["base_input"]:
        raise ValueError('has no tests: "base_input" must be a list of argument lists')
    if not all(isinstance(arguments, list) for arguments in [*row["base_input"], *row["plus_input"]]):
        raise ValueError("has an input that is no list of arguments")
    try:
        return OracleTests(row)
    except SyntaxError as error:
        raise ValueError(f'has an "assertion" that is not Python ({error.msg})') from error


def _verl(row: dict[str, Any]) -> ProgramTests:
    inputs, outputs, fn_name = row.get("inputs"), row.get("outputs"), row.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs:
        raise ValueError('needs "inputs" and "outputs", two lists with at least one test')
    if len(inputs) != len(outputs):
        raise ValueError(f"has {len(inputs)} inputs but {len(outputs)} outputs")
    if not fn_name:
        return StdinTests([_text(value) for value in inputs], [_text(value) for value in outputs])
    pairs = [_call(*pair) for pair in zip(inputs, outputs, strict=True)]
    return CallTests(str(fn_name), [arguments for arguments, _ in pairs], [value for _, value in pairs])


def _text(value: Any) -> str:
    return "\n".join(str(line) for line in value) if isinstance(value, list) else str(value)


def _call(arguments: Any, value: Any) -> tuple[list[Any], Any]:
    """One call; a string of arguments is JSON, one argument a line, and so then is the expected value."""
    if isinstance(arguments, list):
        return arguments, value
    if not isinstance(arguments, str):
        raise ValueError("has an input that is neither a list of arguments nor JSON lines")
    parsed = [json.loads(line) for line in arguments.split("\n") if line.strip()]
    return parsed, json.loads(value) if isinstance(value, str) else value
