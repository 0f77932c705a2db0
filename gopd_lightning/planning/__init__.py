"""`gopd plan`: what a run needs of each rank's memory, and the seconds of a step, before anything loads."""

from gopd_lightning.planning.command import Plan, plan_text

__all__ = ["Plan", "plan_text"]
