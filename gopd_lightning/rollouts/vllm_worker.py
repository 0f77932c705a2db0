"""Living with vLLM in one process: what it may change there, and the two functions that run in its worker."""

import gc
import importlib.util
import os
import random
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gopd_lightning.errors import InputError, TrainingError

_SETTINGS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def check_installed() -> None:
    """See that vLLM is there, without the seconds that importing it takes.

    Raises:
        InputError: It is not; names the extras that bring it.
    """
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            "rollouts.VLLMEngine: vLLM is not installed: pip install 'gopd-lightning[vllm]' on a GPU machine, "
            "or as the Makefile's test-vllm does for a CPU"
        )


def check_head_size(vllm: Any) -> None:
    """Refuse a head size that vLLM's CPU attention has no kernel for: it would say so only when it generates.

    Args:
        vllm: vLLM's engine on a CPU.

    Raises:
        ValueError: The head size has no kernel.
    """
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    size, known = vllm.model_config.get_head_size(), CPUAttentionBackend.get_supported_head_sizes()
    if size not in known:
        raise ValueError(f"its attention heads have {size} dimensions; on a CPU they must have one of {known}")


def keep_groups(vllm: Any) -> None:
    """Keep vLLM from destroying the trainer's process groups when its engine is dropped, or at exit after the trainer.

    Args:
        vllm: vLLM's engine, in process.
    """
    vllm.engine_core._finalizer.detach()
    gc.unfreeze()  # it had all objects of this process passed over by the collector


@contextmanager
def as_guest() -> Iterator[None]:
    """Let vLLM build its engine in this process and then put back what it changed for its own good.

    It seeds the global generators, lowers torch's threads and forbids setting them, and leaves variables such as
    LD_PRELOAD and LOCAL_WORLD_SIZE to every program started later (a sandboxed one among them). Its own variables,
    VLLM_*, stay.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the weights are handed over by reference
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    environment, threads, set_threads = dict(os.environ), torch.get_num_threads(), torch.set_num_threads
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch about vLLM
            yield
    finally:
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)
        for name in os.environ.keys() - environment.keys():
            if not name.startswith("VLLM_"):
                del os.environ[name]
        os.environ.update({name: value for name, value in environment.items() if not name.startswith("VLLM_")})


def load_weights(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Replace all weights of the worker's model.

    vLLM prepacks weights when it loads them, so they cannot be copied into its parameters; `reload_weights` goes
    through its layer-wise loader again. That one only warns of what was not given; here it is an error.

    Args:
        worker: vLLM's worker.
        weights: Name and tensor of each weight.

    Raises:
        TrainingError: Weights of vLLM's model that were not among those given.
    """
    model = worker.model_runner.get_model()
    given: set[str] = set()
    load = model.load_weights

    def noting(found: Iterable[tuple[str, Tensor]]) -> set[str]:
        given.update(load(found))
        return given

    model.load_weights = noting
    try:
        worker.model_runner.reload_weights(weights_iterator=weights)
    finally:
        del model.load_weights  # the class has it still
    _repack_tied_heads(model)
    missing = sorted({name for name, _ in model.named_parameters()} - given)
    if missing:
        raise TrainingError(
            f"vLLM's model has weights that the student did not hand over ({', '.join(missing[:3])}): this "
            "architecture is named differently in vLLM; use rollouts.TransformersEngine"
        )


def _repack_tied_heads(model: Any) -> None:
    """Pack the head again from the embeddings that it shares.

    On a CPU a layer multiplies by a packed copy of its weight, which is made when the layer's weight is loaded. A
    tied head's is never loaded, so that it would go on with its first weights (vLLM 0.32).
    """
    for module in model.modules():
        if hasattr(module, "cpu_linear") and module.weight.numel() > 0:  # others keep the packed copy alone
            module.quant_method.process_weights_after_loading(module)


def limit_vocabulary(worker: Any, size: int) -> None:
    """Give ids from `size` on (padding rows of the head) no probability from now on.

    Args:
        worker: vLLM's worker.
        size: Number of real ids.
    """
    model = worker.model_runner.get_model()
    logits_of = type(model).compute_logits

    def limited(*args: Any, **kwargs: Any) -> Tensor | None:
        logits: Tensor | None = logits_of(model, *args, **kwargs)
        if logits is not None:  # a tensor parallel rank that does not sample has none
            logits[..., size:] = -torch.inf
        return logits

    model.compute_logits = limited
