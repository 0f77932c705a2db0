"""A rollout engine on vLLM servers elsewhere: token ids there and back, weights through a folder."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4
from weakref import ref

import torch
from torch import Tensor, distributed, nn

from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.records import Completion, TokenIds
from gopd_lightning.rollouts.engine import Done, Sampling, Vocabulary
from gopd_lightning.rollouts.vllm_folder import drop_others, write_weights
from gopd_lightning.rollouts.vllm_weights import served_weights
from gopd_lightning.servers import GENERATE, Server, ServerLostError, Servers

_EXTENSION = "gopd_lightning.rollouts.vllm_extension.ServedStudent"


class VLLMServerEngine:
    """Samples on one or several servers of `vllm serve`, which need not be on this machine.

    The servers serve the student's folder (configs/engine/vllm_server.yaml has the command) with
    VLLM_SERVER_DEV_MODE=1, whose routes take new weights: in a private network only. At every `sync`, rank 0 writes the
    student's weights into a folder that the servers see too and has each server load them, drop its prefixes
    and keep a stamp, which every completion must carry. A server that lost its weights, as one that was
    restarted, has another stamp: it is given the weights again before it is used, by whichever rank meets it.
    Prompts go to whichever server is free; those of a lost server go to the others. A completion depends on its
    prompt, the weights and its seed, not on the server, up to the rounding of the batch that it was computed in.

    Args:
        urls: The servers, such as [http://host:8000].
        folder: Where weights are handed over, on a file system that trainer and servers share under this path; a folder
            of its own for every run. Only the newest weights are kept.
        dtype: What weights are written as; null keeps the student's. bfloat16 spares half the bytes.
        wait_s: Seconds that all servers together may be out of reach (starting, or lost) before the run stops.
        request_s: Seconds that one completion may take; longer counts as a lost server.
        concurrency: Completions that each rank asks of each server at a time.

    Raises:
        InputError: No URL, or something else in its place.
    """

    concurrent = True  # `generate` may run in a thread while the student trains

    def __init__(
        self,
        urls: list[str],
        folder: str,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        wait_s: float = 600.0,
        request_s: float = 3600.0,
        concurrency: int = 256,
    ) -> None:
        self.servers = Servers(urls, self._make_ready, wait_s, request_s, concurrency)
        self.folder = Path(folder)
        self.dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.version = 0
        self._stamp = ""
        self._weights = Path()
        self._source: ref[nn.Module] | None = None
        self._vocabulary = 0
        self._needed = 0

    def sync(self, student: nn.Module, version: int) -> None:
        """Hand the student's weights to the servers; with several ranks a collective.

        At the first call all servers must come up; later those that are lost get the weights when they are back.

        Raises:
            InputError: A server that was not started as it must be.
            TrainingError: No server within `wait_s`, or one that cannot take the weights.
        """
        if self._source is not None and self._source() is student and self.version == version:
            return
        if _several_ranks():
            distributed.barrier()  # nobody is being answered under the old weights any more
        weights = served_weights(student)
        with torch.no_grad():
            found = [self._publish(weights, version)] if _rank() == 0 else [None]
            deque(weights, maxlen=0)  # gathers of a sharded student need every rank to the end
        if _several_ranks():
            distributed.broadcast_object_list(found)
        if isinstance(found[0], Exception):
            raise found[0]
        assert found[0] is not None
        self._weights, self._stamp = found[0]
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
            InputError: A prompt and its longest response exceed a server's --max-model-len.
            TrainingError: All servers are lost for too long.
        """
        assert self._source is not None, "sync the engine before it generates"
        self._vocabulary = vocabulary.size
        self._needed = max((len(prompt) for prompt in prompts), default=0) + sampling.max_new_tokens
        bodies = [
            {"token_ids": list(prompts[i // sampling.n]), "sampling_params": _parameters(sampling, seed, vocabulary)}
            for i, seed in enumerate(seeds)
        ]
        completions: dict[int, Completion] = {}

        def keep(number: int, completion: Completion) -> None:
            completions[number] = completion
            if done is not None:
                done(number, completion)

        self.servers.answers(GENERATE, bodies, partial(self._completion, vocabulary.stop_ids), keep)
        return [completions[number] for number in range(len(seeds))]

    def sleep(self) -> None:
        """Nothing to do: the servers have their own memory."""

    def wake(self) -> None:
        """Nothing to do."""

    def _publish(self, weights: Iterator[tuple[str, Tensor]], version: int) -> tuple[Path, str] | Exception:
        """Write weights and bring the servers up to them; what went wrong is for all ranks to raise."""
        first, stamp = self._source is None, f"{version}-{uuid4().hex[:12]}"
        try:
            self._weights = write_weights(weights, self.folder, stamp, self.dtype)
            self._stamp = stamp
            self.servers.make_ready(everyone=first)
            drop_others(self._weights)
        except (InputError, TrainingError) as error:
            return error
        return self._weights, stamp

    async def _make_ready(self, server: Server) -> None:
        """See to it that a server holds the weights of this step and draws real ids only."""
        right = (self._stamp, self._vocabulary)
        if server.held != right:
            server.held = None
            if server.room == 0 or server.lost_since is not None:
                server.room = await _room(server)
            if (await server.get("/weight_info"))["weight_version"] != self._stamp:
                await self._load(server)
            if self._vocabulary:
                await _call(server, "gopd_limit_vocabulary", self._vocabulary)
            server.held = right
        if self._needed > server.room:
            raise InputError(
                f"the vLLM server {server.url} has --max-model-len {server.room}: the longest prompt and "
                f"sampling.max_new_tokens together are {self._needed} tokens; raise it or lower the other"
            )

    async def _load(self, server: Server) -> None:
        """New weights in, prefixes of the old ones out. Whoever is being served starts again under the new ones."""
        await server.post("/pause?mode=abort")
        for found in await _call(server, "gopd_load_weights", str(self._weights)):
            if found.get("error"):
                raise TrainingError(f"the vLLM server {server.url} did not take the weights: {found['error']}")
        if not (await server.post("/reset_prefix_cache"))["success"]:  # another rank has brought it back already
            raise ServerLostError("it kept prefixes that the old weights computed")
        await server.post("/resume")
        await server.post("/update_weight_version", {"new_version": self._stamp})

    def _completion(self, stop_ids: Sequence[int], server: Server, answer: Mapping[str, Any]) -> Completion:
        """One answer as a record, if the right weights gave it."""
        (choice,) = answer["choices"]
        stamps = {span["version"] for span in choice["weight_versions"] or ()}
        if choice["finish_reason"] not in ("stop", "length") or stamps != {self._stamp}:
            stamp = ", ".join(sorted(stamps)) or "none"
            raise ServerLostError(
                f"its weights are {stamp}, not {self._stamp}: it was restarted, or another run has it"
            )
        ids = list(choice["token_ids"])
        logprobs = [float(token["logprob"]) for token in choice["logprobs"]["content"]]
        assert len(ids) == len(logprobs), "vLLM gave another number of log-probs than of tokens"
        return Completion(ids=ids, logprobs=logprobs, finished=ids[-1] in stop_ids, version=self.version)


def _parameters(sampling: Sampling, seed: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """What vLLM is asked for one completion."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": seed,
        "max_tokens": sampling.max_new_tokens,
        "stop_token_ids": list(vocabulary.stop_ids),
        "ignore_eos": True,  # the stop ids say what ends a response, the model's configuration does not
        "logprobs": 0,
        "detokenize": False,
    }


async def _room(server: Server) -> int:
    """A server's longest prompt and response together, once it is seen to be one that can be used."""
    await server.get("/health")
    found = (await _call(server, "gopd_describe"))[0]
    if "processed_logprobs" not in found["logprobs_mode"]:
        raise InputError(f"the vLLM server {server.url}: start it with --logprobs-mode processed_logprobs")
    return int(found["max_model_len"])


async def _call(server: Server, method: str, *args: str | int) -> list[dict[str, Any]]:
    """What every worker of a server answers to a method of its extension."""
    try:
        answer = await server.post("/collective_rpc", {"method": method, "args": list(args)})
    except (InputError, ServerLostError) as error:
        if isinstance(error, ServerLostError) and f"no attribute '{method}'" not in str(error):
            raise
        hint = f"with VLLM_SERVER_DEV_MODE=1 and --worker-extension-cls {_EXTENSION}"
        raise InputError(f"the vLLM server {server.url} cannot be given weights: start it {hint}") from error
    return list(answer["results"])


def _several_ranks() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1


def _rank() -> int:
    return distributed.get_rank() if _several_ranks() else 0
