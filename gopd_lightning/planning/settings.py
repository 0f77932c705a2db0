"""What a plan must know of a run, read from its settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gopd_lightning.errors import InputError
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.rollouts.engine import Sampling
from gopd_lightning.strategies import FSDP2

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The rollout engine as far as memory goes.

    Attributes:
        name: Its class.
        inside: It is the transformers engine, which samples from the student or a copy of it.
        max_batch_tokens: Tokens of its cache at most.
        dtype: Of its copy; None is the student's.
    """

    name: str = "TransformersEngine"
    inside: bool = True
    max_batch_tokens: int = 65536
    dtype: torch.dtype | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One rank's part of a run.

    Attributes:
        ranks: All ranks.
        ranks_of_node: Those of one node.
        accelerator: The Trainer's.
        fsdp: The strategy where it is FSDP2, else None.
        ddp: Every rank holds whole models, gradients are averaged.
        autocast: Dtype of mixed precision, or None.
        rows: Rows of a step on a rank.
        prompts: Prompts of a step on a rank.
        prompt: Longest prompt in tokens.
        response: Longest response in tokens.
        samples: Responses a prompt.
        engine: What samples; None in supervised training.
    """

    ranks: int
    ranks_of_node: int
    accelerator: str
    fsdp: FSDP2 | None
    ddp: bool
    autocast: torch.dtype | None
    rows: int
    prompts: int
    prompt: int
    response: int
    samples: int
    engine: Engine | None

    @property
    def parts(self) -> int:
        """Ranks among which a sharded model is divided."""
        return self.ranks // self.fsdp.replicas if self.fsdp else 1

    @property
    def frozen_parts(self) -> int:
        """Ranks among which a frozen model is divided."""
        return self.parts if self.fsdp and self.fsdp.shard_frozen else 1


def run_of(trainer: Mapping[str, Any], module: Any, data: Any, prompt: int | None, response: int | None) -> Run:
    """A run from the Trainer's settings, the module and the data module.

    Args:
        trainer: Settings of the Trainer, not built.
        module: The module.
        data: The data module.
        prompt: Tokens of a prompt; None takes the longest allowed.
        response: Tokens of a response; None takes the longest allowed.

    Raises:
        InputError: Ranks that cannot be divided as the strategy asks.
    """
    rollout = _rollout(trainer["callbacks"])
    sampling, sampled = _sampling(rollout), bool(module.needs)
    of_node = _devices(trainer["devices"], trainer["accelerator"])
    ranks = of_node * int(trainer["num_nodes"])
    fsdp = _fsdp(trainer["strategy"])
    if fsdp is not None and ranks % fsdp.replicas:
        raise InputError(f"trainer.strategy.replicas is {fsdp.replicas}, which does not divide {ranks} ranks")
    prompts = math.ceil(data.prompts_per_step / ranks)
    samples = sampling.n if sampled else 1
    return Run(
        ranks=ranks,
        ranks_of_node=of_node,
        accelerator="cpu" if trainer["accelerator"] == "cpu" else "gpu",
        fsdp=fsdp,
        ddp=fsdp is None and ranks > 1,
        autocast=_AUTOCAST.get(str(trainer["precision"])),
        rows=prompts * samples,
        prompts=prompts,
        prompt=prompt or data.max_prompt_tokens,
        response=response or sampling.max_new_tokens,
        samples=samples,
        engine=_engine(rollout.get("engine")) if sampled else None,
    )


def loaded(module: Any) -> dict[str, ModelSpec]:
    """The frozen models of a module that its ranks hold; others are on servers."""
    return {name: spec for name, spec in module.routing.specs.items() if spec.url is None}


def _rollout(callbacks: Any) -> Mapping[str, Any]:
    """Settings of the rollout callback; none where there is no such callback."""
    for callback in callbacks or ():
        if callback["class_path"].endswith(".Rollout"):
            return callback.get("init_args") or {}
    return {}


def _sampling(rollout: Mapping[str, Any]) -> Sampling:
    given = rollout.get("sampling")
    return Sampling() if given is None else Sampling(**dict(given.items()))


def _engine(given: Any) -> Engine:
    if given is None:
        return Engine()
    name, settings = given["class_path"].rsplit(".", 1)[-1], given.get("init_args") or {}
    if name != "TransformersEngine":
        return Engine(name=name, inside=False)
    dtype = settings.get("dtype")
    tokens = settings.get("max_batch_tokens", Engine.max_batch_tokens)
    return Engine(max_batch_tokens=tokens, dtype=getattr(torch, dtype) if dtype else None)


def _fsdp(strategy: Any) -> FSDP2 | None:
    """The strategy where it is FSDP2."""
    if isinstance(strategy, str):
        return FSDP2() if strategy == "fsdp2" else None
    if not strategy["class_path"].endswith(".FSDP2"):
        return None
    return FSDP2(**dict((strategy.get("init_args") or {}).items()))


def _devices(devices: Any, accelerator: str) -> int:
    """Ranks of a node."""
    if isinstance(devices, list):
        return len(devices)
    if str(devices) not in ("auto", "-1"):
        return int(devices)
    return 1 if accelerator == "cpu" else max(1, torch.cuda.device_count())
