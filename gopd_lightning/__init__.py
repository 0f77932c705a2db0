"""gopd: Generalized On-Policy Distillation for language models, on PyTorch Lightning.

The names below are loaded when they are first used, so that `gopd_lightning.objectives` and other rooms can be
imported without Lightning.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "GOPD": "gopd_lightning.modules",
    "GRPO": "gopd_lightning.modules",
    "SFT": "gopd_lightning.modules",
    "Policy": "gopd_lightning.modules",
    "Canonical": "gopd_lightning.modules",
    "PromptData": "gopd_lightning.data",
    "FSDP2": "gopd_lightning.strategies",
}

__all__ = ["FSDP2", "GOPD", "GRPO", "SFT", "Canonical", "Policy", "PromptData", "__version__"]


def __getattr__(name: str) -> Any:
    """Load one of the public classes."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gopd_lightning' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
