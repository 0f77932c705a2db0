r"""Ground truths of mathematics: what is in them, and the commands in them that lost their backslash."""

import re

from gopd_lightning.records import Prompt
from gopd_lightning.verifiers.mathematics.answer import extract_boxed

# Before a brace any run of letters is a broken command; elsewhere those are that no one writes as text.
_BROKEN = re.compile(
    r"(?<![A-Za-z\\])(?:"
    r"[A-Za-z]*?(sqrt|[dtc]?frac|[dt]?binom|cdot|infty|overline|math(?:rm|bb|bf)|text|boxed|pi)\s*\{"
    r"|([A-Za-z]{2,})\{"
    r"|(sqrt|[dtc]?frac|[dt]?binom|cdot|infty|pi|leq|geq)(?![A-Za-z])"
    r"|(left|right)(?=\s*\\?[(\[{|)\]}])"
    r"|(?<=[\d})\]])\s?(times|cup|cap|pm|div)(?=\s*[\d\\({\[])"
    r")"
)
_TEXT = re.compile(r"\\(?:text|mbox|hbox|math|operatorname|begin|end)[a-z]*\s*\{[^{}]*\}")


def gold_of(prompt: Prompt) -> str:
    r"""The ground truth of a prompt, without a box or dollar signs around it; "" when there is none.

    Args:
        prompt: A prompt.
    """
    answer = (prompt.answer or "").strip()
    boxed = extract_boxed(answer)
    return answer.strip("$").strip() if boxed is None else boxed.strip()


def broken_command(gold: str) -> str | None:
    r"""A LaTeX command that lacks its backslash: math-verify reads `sqrt{7}` as s*q*r*t*7.

    Args:
        gold: A ground truth.

    Returns:
        The command's name; None when there is none.
    """
    found = _BROKEN.search(_TEXT.sub(" ", gold))
    return next(name for name in found.groups() if name) if found else None
