"""What to change when a run does not fit, in the order of what it costs least."""

from collections.abc import Iterator, Mapping
from typing import Any

from gopd_lightning.planning.settings import Run, loaded


def advice(run: Run, module: Any, stays: Mapping[str, int], phase: str, adds: Mapping[str, int]) -> list[str]:
    """Settings to change, those that touch the most bytes first.

    Args:
        run: The run.
        module: The module.
        stays: Bytes that stay in memory by name.
        phase: The phase that needs the most.
        adds: Bytes that it adds by name.
    """
    found = sorted(_frozen(run, module, stays, adds), reverse=True)
    found += sorted([*_student(run, module, stays, adds), *_rollout(run, adds)], reverse=True)
    return [words for size, words in sorted(found, reverse=True) if size > 0]


def _frozen(run: Run, module: Any, stays: Mapping[str, int], adds: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    size, specs = stays["frozen models"], loaded(module).values()
    if any(spec.dtype == "float32" for spec in specs):
        yield size // 2, "load teachers and reference in bfloat16 (dtype: bfloat16 beside their path)"
    if run.fsdp is not None and not run.fsdp.shard_frozen:
        yield size * (run.parts - 1) // run.parts, "shard the frozen models (trainer.strategy: shard_frozen: true)"
    if len(specs) > 1 and module.max_loaded_models != 1:
        yield size // 2, "let one frozen model be in memory at a time (model.max_loaded_models: 1)"


def _student(run: Run, module: Any, stays: Mapping[str, int], adds: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    sharded = stays["weights"] + stays["optimizer"] + adds.get("gradients", 0)
    if run.fsdp is None:
        yield sharded // 2, "shard over more ranks (trainer.strategy: fsdp2, trainer.devices, trainer.num_nodes)"
    else:
        yield sharded // 2, "use more ranks (trainer.devices, trainer.num_nodes), or fewer replicas"
    kept = adds.get("activations", 0)
    if not module.spec.gradient_checkpointing:
        yield kept * 3 // 4, "recompute activations (model.student.gradient_checkpointing: true)"
    if module.max_micro_batch_tokens > run.prompt + run.response:
        yield kept // 2, f"use smaller micro-batches (model.max_micro_batch_tokens < {module.max_micro_batch_tokens})"
    if run.fsdp is not None and run.fsdp.compute_dtype == "float32":
        yield (kept + adds.get("gathered weights", 0)) // 2, "compute in bfloat16 (trainer.strategy: compute_dtype)"


def _rollout(run: Run, adds: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    if adds.get("KV cache", 0):
        yield adds["KV cache"] // 2, "cache fewer tokens at a time (engine: max_batch_tokens), or in bfloat16"
    if adds.get("student's copy", 0):
        yield adds["student's copy"], "sample with vLLM (configs/engine/vllm.yaml), or in bfloat16 (engine: dtype)"
