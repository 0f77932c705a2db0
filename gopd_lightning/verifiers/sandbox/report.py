"""What the process of a program tells its keeper: lines of JSON on descriptor 3, a value or an error each.

Standard library only, and nothing of gopd: the program runner loads this file inside the sandbox.
"""

import json
import os
import typing
from collections.abc import Callable

DESCRIPTOR = 3
FILE_BYTES = 16 * 2**20  # largest file, stdout included
VALUE_BYTES = 8 * 2**20  # all values of a run as JSON
ERROR_BYTES = 2**14  # there is always room for an error
DEEPEST = 200
ENDED_EARLY = "exited before the last test"
TOO_LARGE = f"output above {VALUE_BYTES // 2**20} MiB"


class Report(typing.NamedTuple):
    """The values up to the first fault, and that fault (None: there is none)."""

    values: list[typing.Any]
    error: str | None


def reporter() -> Callable[[str, typing.Any], None]:
    """A function that writes a line, "value" or "error"; it holds on to what a program might replace."""
    dumps, write = json.dumps, os.write
    left = [VALUE_BYTES - ERROR_BYTES]

    def say(kind: str, value: typing.Any) -> None:
        line = memoryview((dumps({kind: value}) + "\n").encode())
        left[0] -= len(line)
        if left[0] < 0 and kind == "value":
            raise OverflowError(TOO_LARGE)
        while line:
            line = line[write(DESCRIPTOR, line) :]

    return say


def described(error: BaseException) -> str:
    """An exception for people."""
    if isinstance(error, MemoryError):
        return "memory"
    text = str(error)[:1000]
    if text == TOO_LARGE:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def read(file: typing.IO[bytes]) -> Report:
    """Read what `reporter` wrote, or what the program made of it.

    Args:
        file: The file behind the descriptor.
    """
    file.seek(0)
    data = file.read(VALUE_BYTES + 1)
    if len(data) > VALUE_BYTES:
        return Report([], TOO_LARGE)
    values: list[typing.Any] = []
    for text in data.split(b"\n")[:-1]:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            return Report(values, "unreadable value")
        if not isinstance(line, dict) or "value" not in line:
            told = line.get("error") if isinstance(line, dict) else None
            return Report(values, words(told) if isinstance(told, str) else "unreadable value")
        if not shallow(line):
            return Report(values, f"value nested deeper than {DEEPEST}")
        values.append(line["value"])
    return Report(values, None)


def shallow(value: typing.Any) -> bool:
    """Whether whoever reads a value can walk it by recursion."""
    layer = [value]
    for _ in range(DEEPEST):
        layer = [item for one in layer for item in inside(one)]
        if not layer:
            return True
    return False


def inside(value: typing.Any) -> list[typing.Any]:
    """The items of a list or dict that may have items of their own."""
    items = value.values() if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, list | dict)]


def words(text: str) -> str:
    """What a program said of itself, on one short line."""
    line = " ".join(text.split())[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in line)
