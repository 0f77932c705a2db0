"""The program in a response: one rule for rewards and evaluation."""

import re
from dataclasses import dataclass

# A fence stands first in its line (list marks and quotes aside), or, where it names Python, last in a line of prose.
_OPENING = re.compile(
    r"(?P<indent>[ \t]*)(?:[-*+>][ \t]+|\d+[.)][ \t]+)?(?P<marks>`{3,}|~{3,})[ \t]*(?P<name>[^\s`]*).*"
)
_AFTER_PROSE = re.compile(r"[^`]*[^`\s][ \t]*(?P<marks>`{3,})(?P<name>(?i:python3?|py))[ \t]*")
_PYTHON = ("python", "python3", "py")
_DEEPER = 4  # a fence line indented this much deeper than its block is part of the code (a docstring, say)
_END_OF_THOUGHT = "</think>"


@dataclass(slots=True)
class _Block:
    """A fenced block: the language that it names, its lines, and what its closing fence must look like."""

    name: str
    marks: str
    indent: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "".join(f"{_dedent(line, self.indent)}\n" for line in self.lines)


def extract_program(response: str) -> str:
    r"""The program that a response gives as its answer.

    The rule: what stands before the last `</think>` is no answer. Of the rest, the last fenced block that names
    Python (python, python3, py, in any case) is the program; where no block does, the last block that names no
    language; where there is none of these either, the whole rest. Blocks in other languages do not count.

    Fences are three or more backticks or tildes. A block ends at the next fence of its kind, or with the text: one
    that was cut off counts. A fence line indented by four or more beyond its block belongs to the code. An indented
    block loses its indentation. Windows line ends become plain ones.

    Args:
        response: Response text.

    Returns:
        Python source.
    """
    if _END_OF_THOUGHT in response:
        response = response.rpartition(_END_OF_THOUGHT)[2]
    if "```" not in response and "~~~" not in response:
        return response
    response = response.replace("\r\n", "\n")
    blocks = _blocks(response)
    named = [block for block in blocks if block.name in _PYTHON] or [block for block in blocks if not block.name]
    return named[-1].text if named else response


def _blocks(text: str) -> list[_Block]:
    found: list[_Block] = []
    block: _Block | None = None
    for line in text.removesuffix("\n").split("\n"):
        if block is None or _opens_another(line, block):
            block = _opened(line)
            if block is not None:
                found.append(block)
        elif _closes(line, block):
            block = None
        elif line.rstrip().endswith(block.marks) and line.strip().strip(block.marks[0]):
            # The closing fence was put behind the last line of code.
            block.lines.append(line.rstrip().rstrip(block.marks[0]))
            block = None
        else:
            block.lines.append(line)
    return found


def _opened(line: str) -> _Block | None:
    match = _OPENING.fullmatch(line) or _AFTER_PROSE.fullmatch(line)
    if match is None:
        return None
    indent = len(match.groupdict().get("indent") or "")
    return _Block(match["name"].strip("{.}").lower(), match["marks"], indent, [])


def _opens_another(line: str, block: _Block) -> bool:
    """A fence that names a language cannot close a block: the one before it was left open."""
    text = line.strip()
    return text.startswith(block.marks) and bool(text.strip(block.marks[0])) and _near(line, block)


def _closes(line: str, block: _Block) -> bool:
    text = line.strip()
    return text.startswith(block.marks) and not text.strip(block.marks[0]) and _near(line, block)


def _near(line: str, block: _Block) -> bool:
    return len(line) - len(line.lstrip()) < block.indent + _DEEPER


def _dedent(line: str, indent: int) -> str:
    return line[min(indent, len(line) - len(line.lstrip())) :]


def complete(prompt: str, program: str, entry_point: str) -> str:
    """A program with the code of its prompt before it.

    A prompt that is code may bring imports and helpers that the answer leaves out, or be a function head that the
    answer only goes on with.

    Args:
        prompt: Code that the model was given.
        program: What it answered.
        entry_point: Name of the function asked for.

    Returns:
        Python source: prompt and program, `__future__` imports first.
    """
    if not re.search(
        rf"^(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(entry_point)}\b|^{re.escape(entry_point)}[ \t]*=",
        program,
        re.M,
    ):
        return prompt + program
    future = re.findall(r"^from __future__ import [^\n;]*$", program, re.M)
    return "\n".join([*future, prompt, re.sub(r"^from __future__ import [^\n;]*$", "pass", program, flags=re.M)])
