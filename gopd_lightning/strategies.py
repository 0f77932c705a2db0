"""FSDP2 on Lightning's ModelParallelStrategy: one setting for flat or hybrid sharding.

Lightning's own default mesh is tensor parallel, not data parallel, which is put right here (tried on Lightning 2.6.6
with torch 2.13). Gradients are reduced after every micro-batch: kept for the last, they would be whole on every rank.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from gopd_lightning.errors import InputError
from gopd_lightning.models.scoring import plain_trunk, unwrapped
from gopd_lightning.models.shards import materialise


class FSDP2(ModelParallelStrategy):
    """Shards the student and the frozen models over all ranks, or within groups that replicate one another.

    No rank holds a model whole while it loads: it is built without memory, and each rank reads its own part of the
    weights from safetensors files.

    Args:
        replicas: Number of groups that hold a full sharded copy each: 1 is FSDP over all ranks, the number of
            nodes is hybrid sharding.
        compute_dtype: The student's dtype of compute (bfloat16 on accelerators); weights, reduction and optimizer
            stay float32.
        shard_frozen: Shard teachers and references too. False keeps a whole copy of them on every rank, which costs
            memory and saves gathering them. Those with adapters are whole in either case.
        compile: Compile each block with `torch.compile`: slow first steps, faster ones after.
        save_distributed_checkpoint: A folder with one file a rank instead of one file.
    """

    def __init__(
        self,
        replicas: int = 1,
        compute_dtype: str = "float32",
        shard_frozen: bool = True,
        compile: bool = False,
        save_distributed_checkpoint: bool = True,
    ) -> None:
        super().__init__(
            data_parallel_size=1,
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
        )
        self.replicas = replicas
        self.compute_dtype = compute_dtype
        self.shard_frozen = shard_frozen
        self.compile = compile

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
        """Shard the student in place: each block, then the rest, which stays gathered from forward to backward.

        Args:
            student: A Hugging Face causal language model, loaded (the same weights on every rank) or without memory
                yet, which it gets here (see `models.shards`).
        """
        self._shard(student, self.compute_dtype, keep_rest=True)

    @property
    def place_frozen(self) -> Callable[[nn.Module], None] | None:
        """Shards a frozen model in place, in its own dtype; None when every rank holds it whole."""
        return self._place_frozen if self.shard_frozen else None

    def _place_frozen(self, model: nn.Module) -> None:
        self._shard(model, None, keep_rest=False)

    def _shard(self, model: nn.Module, compute_dtype: str | None, keep_rest: bool) -> None:
        """Shard a model, give it memory, and let it be scored with."""
        mesh = self._mesh if self.replicas > 1 else self._mesh["shard"]
        policy = MixedPrecisionPolicy(cast_forward_inputs=False)
        if compute_dtype is not None:
            dtype = getattr(torch, compute_dtype)
            policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        empty = any(parameter.is_meta for parameter in model.parameters())
        if not empty:
            model.to(self.root_device)
        for block in blocks(model):
            if self.compile:
                block.compile()
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=not keep_rest)
        if empty:
            materialise(model, self.root_device)
        # the trunk alone is run for scoring: its own entry, so that the root's hooks run around it
        model.trunk_forward = MethodType(_trunk_forward, model)  # type: ignore[assignment]
        register_fsdp_forward_method(model, "trunk_forward")
        model.most_forwards = MethodType(_most_forwards, model)  # type: ignore[assignment]

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
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
            fresh.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        self.barrier("checkpoint in place")
        return None


def restore_replaced(checkpoints: Path) -> None:
    """Put back the checkpoints that a kill found between the two renames of `FSDP2.save_checkpoint`.

    Args:
        checkpoints: Folder of a run's checkpoints; it need not exist. Every rank may call.
    """
    for old in checkpoints.glob("*.ckpt.old"):
        if not old.with_suffix("").exists():
            with suppress(OSError):  # another rank was faster
                old.rename(old.with_suffix(""))


def blocks(model: nn.Module) -> list[nn.Module]:
    """The decoder blocks of a transformers model, by the class names that the model itself says not to split."""
    names = set(getattr(unwrapped(model), "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def _trunk_forward(self: nn.Module, ids: Tensor) -> Tensor:
    """`models.scoring.plain_trunk` as a method of the sharded student."""
    return plain_trunk(self, ids)


def _most_forwards(self: nn.Module, own: int) -> int:
    """The largest `own` of all ranks: how often each must run this sharded model before it goes on."""
    count = torch.tensor(own, device=next(self.parameters()).device)
    distributed.all_reduce(count, op=distributed.ReduceOp.MAX)
    return int(count)


# on the command line a strategy is a name: `--trainer.strategy fsdp2`; YAML may also give class_path and init_args
if "fsdp2" not in StrategyRegistry:
    StrategyRegistry.register("fsdp2", FSDP2, description="gopd_lightning.FSDP2: the student sharded over all ranks")
