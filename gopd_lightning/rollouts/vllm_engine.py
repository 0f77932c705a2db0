"""A rollout engine on vLLM in the trainer's own process: paged attention, continuous batching, its own weights."""

import gc
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from weakref import ref

import torch
from torch import nn

from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.records import Completion, TokenIds
from gopd_lightning.rollouts.engine import Done, Sampling, Vocabulary
from gopd_lightning.rollouts.vllm_weights import served_config, served_weights
from gopd_lightning.rollouts.vllm_worker import (
    as_guest,
    check_head_size,
    check_installed,
    keep_groups,
    limit_vocabulary,
    load_weights,
)

_GIB = 1 << 30


class VLLMEngine:
    """Samples with vLLM, which holds a copy of the student's weights that `sync` replaces.

    vLLM is built at the first `sync`, from the student's configuration alone: no path is given and no weights are
    read from disk. Every rank is an engine of its own on its own prompts. Log-probs are those of the distribution that
    a token was drawn from (temperature and truncation included; greedy tokens at temperature 1). A completion
    depends on its prompt, the weights and its seed, up to the rounding of the batch that it was computed in.

    On CUDA `sleep` frees weights and cache, and `sync` owns the way back: weights' memory, weights, cache's memory,
    prefix cache (after a sleep of level 2 `wake_up` alone would leave garbage in them). This has been read in
    vLLM's source, not run. On a CPU both do nothing.

    Args:
        dtype: Weights and compute of the engine; null takes the student's own.
        max_model_len: Longest prompt and response together; null takes the student's context. Lower it when vLLM
            says that its cache does not hold one such sequence.
        kv_cache_gib: Memory for keys and values; null takes 1 on a CPU (or VLLM_CPU_KVCACHE_SPACE), and on a GPU
            what `gpu_memory_utilization` leaves.
        engine_args: Further arguments of `vllm.EngineArgs`, such as {enforce_eager: true}; they win.

    Raises:
        InputError: vLLM is not installed.
    """

    def __init__(
        self,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        max_model_len: int | None = None,
        kv_cache_gib: float | None = None,
        engine_args: dict[str, Any] | None = None,
    ) -> None:
        check_installed()
        self.dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.max_model_len = max_model_len
        self.kv_cache_gib = kv_cache_gib
        self.engine_args = engine_args or {}
        self.version = 0
        self._vllm: Any = None
        self._shape = ""
        self._source: ref[nn.Module] | None = None
        self._vocabulary: int | None = None
        self._asleep = False

    def sync(self, student: nn.Module, version: int) -> None:
        """Hand the student's weights to vLLM and drop its prefixes; of a sharded student a collective.

        Raises:
            InputError: vLLM cannot serve this student with these settings; its own reason.
            TrainingError: vLLM did not take all weights, or kept cached prefixes of the old ones.
        """
        if self._source is not None and self._source() is student and self.version == version:
            return
        self._take_shape(student)
        self._source = None  # until all of it has worked
        if self._asleep:
            self._vllm.wake_up(["weights"])
        with torch.no_grad():
            self._vllm.collective_rpc(load_weights, args=(served_weights(student),))
        if self._asleep:
            self._vllm.wake_up(["kv_cache"])
            self._asleep = False
        if not self._vllm.reset_prefix_cache():
            raise TrainingError("vLLM kept prefixes that the old weights computed: requests were still running")
        self._source, self.version = ref(student), version

    def generate(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        vocabulary: Vocabulary,
        done: Done | None = None,
    ) -> list[Completion]:
        """See `RolloutEngine.generate`.

        Raises:
            InputError: A prompt and its longest response exceed `max_model_len`.
        """
        assert self._source is not None, "sync the engine before it generates"
        self._check_room(prompts, sampling)
        if self._vocabulary != vocabulary.size:
            self._vllm.collective_rpc(limit_vocabulary, args=(vocabulary.size,))
            self._vocabulary = vocabulary.size
        completions: list[Completion | None] = [None] * len(seeds)
        with torch.random.fork_rng([]):  # on a CPU vLLM draws from the global generator, though all requests have seeds
            for number, output in self._finished(prompts, sampling, seeds, vocabulary.stop_ids):
                completion = self._completion(output, vocabulary.stop_ids)
                completions[number] = completion
                if done is not None:
                    done(number, completion)
        return [completion for completion in completions if completion is not None]

    def sleep(self) -> None:
        """Free weights and cache on CUDA; the next `sync` brings both back."""
        if self._vllm is None or _on_cpu(self._vllm):
            return
        self._vllm.sleep(level=2)
        self._asleep, self._source = True, None

    def wake(self) -> None:
        """Nothing to do: `sync` wakes, because only new weights make an engine that slept usable."""

    def _finished(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        stop_ids: Sequence[int],
    ) -> Iterator[tuple[int, Any]]:
        """Number and output of each completion as it is finished; what is not is dropped when the caller leaves."""
        requests = {}
        try:
            for number, seed in enumerate(seeds):
                prompt = {"prompt_token_ids": list(prompts[number // sampling.n])}
                requests[str(number)] = self._vllm.add_request(
                    str(number), prompt, _parameters(sampling, seed, stop_ids)
                )
            while self._vllm.has_unfinished_requests():
                for output in self._vllm.step():
                    if output.finished:
                        requests.pop(output.request_id)
                        yield int(output.request_id), output.outputs[0]
        finally:
            if requests:
                self._vllm.abort_request(list(requests.values()), internal=True)

    def _completion(self, output: Any, stop_ids: Sequence[int]) -> Completion:
        """One output as a record."""
        ids = list(output.token_ids)
        logprobs = [float(x) for x in output.logprobs.logprobs]
        assert len(ids) == len(logprobs), "vLLM gave another number of log-probs than of tokens"
        return Completion(ids=ids, logprobs=logprobs, finished=ids[-1] in stop_ids, version=self.version)

    def _check_room(self, prompts: Sequence[TokenIds], sampling: Sampling) -> None:
        """Refuse what vLLM would cut without a word."""
        longest = max((len(prompt) for prompt in prompts), default=0)
        room = self._vllm.model_config.max_model_len
        if longest + sampling.max_new_tokens > room:
            raise InputError(
                f"engine.max_model_len is {room}: a prompt of {longest} tokens and sampling.max_new_tokens = "
                f"{sampling.max_new_tokens} do not fit; raise it or lower the other"
            )

    def _take_shape(self, student: nn.Module) -> None:
        """Build vLLM for this shape, unless it has it; a teacher that is sampled for its baseline may have another."""
        shape = served_config(student).to_json_string()
        if shape == self._shape:
            return
        self._vllm, self._source, self._vocabulary, self._asleep = None, None, None, False
        gc.collect()  # the old one's memory first
        self._vllm, self._shape = self._built(student), shape

    def _built(self, student: nn.Module) -> Any:
        """An engine of vLLM's with the student's shape and random weights."""
        with as_guest(), tempfile.TemporaryDirectory() as folder:
            from vllm import EngineArgs, LLMEngine

            served_config(student).save_pretrained(folder)
            try:
                vllm = LLMEngine.from_engine_args(EngineArgs(**self._arguments(folder, student)))
                keep_groups(vllm)
                if _on_cpu(vllm):
                    check_head_size(vllm)
                return vllm
            except (ValueError, NotImplementedError) as error:
                reason = " ".join(str(error).split())[:300]
                raise InputError(f"rollouts.VLLMEngine: vLLM cannot serve this student: {reason}") from error

    def _arguments(self, folder: str, student: nn.Module) -> dict[str, Any]:
        """Arguments of vLLM's engine."""
        from vllm.platforms import current_platform

        common: dict[str, Any] = {
            "model": folder,
            "dtype": self.dtype or next(student.parameters()).dtype,
            "max_model_len": self.max_model_len,
            "load_format": "dummy",  # the weights come by `sync`
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # no sampling defaults but ours
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
            "seed": 0,
        }
        if self.kv_cache_gib is not None:
            common["kv_cache_memory_bytes"] = int(self.kv_cache_gib * _GIB)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            common["distributed_executor_backend"] = "external_launcher"
            _export_ranks()
        own = _cpu_arguments(common, student) if current_platform.is_cpu() else _GPU_ARGUMENTS
        return {**own, **common, **self.engine_args}


def _on_cpu(vllm: Any) -> bool:
    return bool(vllm.vllm_config.device_config.device_type == "cpu")


_GPU_ARGUMENTS = {"enable_sleep_mode": True, "gpu_memory_utilization": 0.4}


def _cpu_arguments(common: dict[str, Any], student: nn.Module) -> dict[str, Any]:
    """What a CPU needs: a small cache, prompts read whole, nothing compiled.

    A prompt that is read in parts makes vLLM wind its generator back, which torch's CPU generators cannot do
    (0.32: "CPU Generator does not use offset"). Compiling costs a minute and did not pay in small models.
    """
    context = common["max_model_len"] or served_config(student).max_position_embeddings
    found = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(8192, context), "enforce_eager": True}
    if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        found["kv_cache_memory_bytes"] = _GIB
    return found


def _parameters(sampling: Sampling, seed: int, stop_ids: Sequence[int]) -> Any:
    """What vLLM is asked for one completion."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=seed,
        max_tokens=sampling.max_new_tokens,
        stop_token_ids=list(stop_ids),
        ignore_eos=True,  # the stop ids say what ends a response, the model's configuration does not
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _export_ranks() -> None:
    """Say to vLLM which rank this is: under SLURM only MASTER_ADDR and MASTER_PORT are set."""
    group = torch.distributed
    local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or str(group.get_rank())
    os.environ.update(RANK=str(group.get_rank()), LOCAL_RANK=local, WORLD_SIZE=str(group.get_world_size()))
