"""LightningModules: the on-policy step, the methods that are it with an objective, and what is only evaluated."""

from gopd_lightning.modules.canonical import Canonical
from gopd_lightning.modules.gopd import GOPD
from gopd_lightning.modules.grpo import GRPO
from gopd_lightning.modules.policy import Policy
from gopd_lightning.modules.sft import SFT

__all__ = ["Canonical", "GOPD", "GRPO", "SFT", "Policy"]
