"""Programs graded by hidden tests: formats, comparison, the verifier."""

from gopd_lightning.verifiers.programs.answer import extract_program
from gopd_lightning.verifiers.programs.verifier import ProgramVerifier

__all__ = ["ProgramVerifier", "extract_program"]
