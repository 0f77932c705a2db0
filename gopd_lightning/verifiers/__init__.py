"""Verifiers: a response in, a reward in [0, 1] out."""

from gopd_lightning.verifiers.exact import ExactMatch
from gopd_lightning.verifiers.mathematics import MathVerifier, extract_boxed
from gopd_lightning.verifiers.programs import ProgramVerifier, extract_program
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
