"""Verifiers: a response in, a reward in [0, 1] out."""

from gopd_lightning.verifiers.boxed import MathVerifier
from gopd_lightning.verifiers.exact import ExactMatch
from gopd_lightning.verifiers.math_answer import extract_boxed
from gopd_lightning.verifiers.program import ProgramVerifier
from gopd_lightning.verifiers.program_answer import extract_program
from gopd_lightning.verifiers.protocol import Verifier
from gopd_lightning.verifiers.weighted import Part, WeightedSum

__all__ = [
    "ExactMatch",
    "MathVerifier",
    "Part",
    "ProgramVerifier",
    "Verifier",
    "WeightedSum",
    "extract_boxed",
    "extract_program",
]
