"""Mathematical answers: the last box of a response compared with a gold."""

from gopd_lightning.verifiers.mathematics.answer import extract_boxed
from gopd_lightning.verifiers.mathematics.verifier import MathVerifier

__all__ = ["MathVerifier", "extract_boxed"]
