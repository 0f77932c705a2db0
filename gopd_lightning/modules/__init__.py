"""LightningModules: the on-policy step, and the methods that are it with an objective."""

from gopd_lightning.modules.gopd import GOPD
from gopd_lightning.modules.grpo import GRPO
from gopd_lightning.modules.policy import Policy
from gopd_lightning.modules.sft import SFT

__all__ = ["GOPD", "GRPO", "SFT", "Policy"]
