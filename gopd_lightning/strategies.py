"""FSDP2 on Lightning's ModelParallelStrategy: one setting for flat or hybrid sharding, and gradient-sync control.

Lightning's own default mesh is tensor parallel, not data parallel, and its `block_backward_sync` skips
synchronisation for DDP only; both are put right here (tried on Lightning 2.6.6 with torch 2.13).
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from gopd_lightning.errors import InputError
from gopd_lightning.models.scoring import plain_trunk, unwrapped


class FSDP2(ModelParallelStrategy):
    """Shards the student over all ranks, or within groups that replicate one another.

    Frozen models are not sharded: every rank holds its own copy of them.

    Args:
        replicas: Number of groups that hold a full sharded copy each: 1 is FSDP over all ranks, the number of
            nodes is hybrid sharding.
        compute_dtype: Dtype of compute (bfloat16 on accelerators); weights, reduction and optimizer stay float32.
        save_distributed_checkpoint: A folder with one file a rank instead of one file.
    """

    def __init__(
        self,
        replicas: int = 1,
        compute_dtype: str = "float32",
        save_distributed_checkpoint: bool = True,
    ) -> None:
        super().__init__(
            data_parallel_size=1,
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
        )
        self.replicas = replicas
        self.compute_dtype = compute_dtype
        self._student: Any = None

    def setup_environment(self) -> None:
        """Lay the ranks out as (replicate, shard) after Lightning has started the process group.

        Raises:
            InputError: The ranks cannot be divided into `replicas` groups.
        """
        ranks = self.num_nodes * self.num_processes
        if ranks % self.replicas:
            raise InputError(f"trainer.strategy.replicas is {self.replicas}, which does not divide {ranks} ranks")
        self._data_parallel_size, self._tensor_parallel_size = ranks, 1
        super().setup_environment()
        self._mesh = init_device_mesh(
            self.root_device.type,
            (self.replicas, ranks // self.replicas),
            mesh_dim_names=("replicate", "shard"),
        )

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every rank is a data-parallel rank."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    def place(self, student: nn.Module) -> None:
        """Shard a loaded student in place: each block, then the rest.

        Args:
            student: A Hugging Face causal language model, the same weights on every rank.
        """
        mesh = self._mesh if self.replicas > 1 else self._mesh["shard"]
        policy = MixedPrecisionPolicy(
            param_dtype=getattr(torch, self.compute_dtype),
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )
        student.to(self.root_device)
        for block in blocks(student):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(student, mesh=mesh, mp_policy=policy)
        # the trunk alone is run for scoring: its own entry, so that the root's hooks run around it
        student.trunk_forward = MethodType(_trunk_forward, student)  # type: ignore[assignment]
        register_fsdp_forward_method(student, "trunk_forward")
        self._student = student

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a sharded checkpoint whole or not at all: Lightning writes into the old one's folder.

        Args:
            checkpoint: What to save.
            filepath: The folder (or file, when checkpoints are not sharded).
            storage_options: Refused by Lightning.
        """
        if not self._save_distributed_checkpoint:
            return super().save_checkpoint(checkpoint, filepath, storage_options)
        path = Path(self.broadcast(filepath))
        fresh, old = path.with_name(f"{path.name}.new"), path.with_name(f"{path.name}.old")
        if self.global_rank == 0:
            shutil.rmtree(fresh, ignore_errors=True)
        self.barrier("before the checkpoint")
        super().save_checkpoint(checkpoint, fresh, storage_options)
        self.barrier("checkpoint written")
        if self.global_rank == 0:
            if path.exists():
                path.rename(old)
            fresh.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        self.barrier("checkpoint in place")
        return None

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Keep gradients on their rank for the backward passes inside."""
        self._student.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self._student.set_requires_gradient_sync(True)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The decoder blocks of a transformers model, by the class names that the model itself says not to split."""
    names = set(getattr(unwrapped(model), "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def _trunk_forward(self: nn.Module, ids: Tensor) -> Tensor:
    """`models.scoring.plain_trunk` as a method of the sharded student."""
    return plain_trunk(self, ids)


# on the command line a strategy is a name: `--trainer.strategy fsdp2`; YAML may also give class_path and init_args
if "fsdp2" not in StrategyRegistry:
    StrategyRegistry.register("fsdp2", FSDP2, description="gopd_lightning.FSDP2: the student sharded over all ranks")
