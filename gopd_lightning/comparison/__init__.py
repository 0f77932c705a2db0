"""`gopd compare`: runs of an evaluation against each other, problem by problem, with intervals and tests."""

from gopd_lightning.comparison.command import compare_runs

__all__ = ["compare_runs"]
