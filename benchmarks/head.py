"""K1: log-probs of sampled tokens from hidden states, forward and backward: `.venv/bin/python benchmarks/head.py`.

1024 tokens, hidden size 576, vocabularies of SmolLM2 and Qwen3, float32 and bfloat16 weights; the mean of the log-probs
is differentiated. Ways: all logits at once, plain and compiled, with and without torch's cross entropy; torch's fused
function; TRL's and Liger's kernels where they are installed; and gopd, which gives the entropy as well. As in training,
a step begins without gradients. Peak memory is that of a process of its own, beyond inputs and their gradients.
"""

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from memory import peak_of, peak_of_process
from side_by_side import in_turns, medians, row, write
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions

from gopd_lightning.logprobs import Head, States
from gopd_lightning.losses import logprob_loss

TOKENS, HIDDEN = 1024, 576
VOCABULARIES = (49152, 151936)
NEAR = 2  # this many of the fastest other ways are run again with the larger vocabulary
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def eager(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """All logits at once."""
    logits = F.linear(hidden, weight).float()
    return (logits.gather(-1, ids[:, None]).squeeze(-1) - logits.logsumexp(-1)).mean()


def cross_entropy(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """Torch's cross entropy on all logits."""
    return -F.cross_entropy(F.linear(hidden, weight).float(), ids)


def fused(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """Torch's fused function; its default chunks are far too small on a CPU."""
    options = LinearCrossEntropyOptions(batch_chunk_size=256)
    return -F.linear_cross_entropy(hidden, weight, ids, options=options)


def trl(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """TRL's tiles, as its trainers call them."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    return ChunkedLogProbFunction.apply(hidden, weight, None, ids, 1.0, 8192)[0].mean()  # type: ignore[no-any-return]


def liger(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """Liger's fused function, which falls back to chunks of torch on a CPU."""
    from liger_kernel.ops.fused_linear_scaled_cross_entropy import LigerFusedLinearScaledCrossEntropyFunction

    out = LigerFusedLinearScaledCrossEntropyFunction.apply(hidden, weight, ids)
    return -(out[0] if isinstance(out, tuple) else out).mean()  # type: ignore[no-any-return]


def gopd(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """The gradient made in the forward pass, chunk by chunk."""
    weights = torch.full((len(ids),), 1 / len(ids))
    return logprob_loss(States(hidden, Head(weight)), ids, weights, lambda logprobs, rows: logprobs).total


def ways() -> dict[str, Way]:
    """What there is to compare on this machine."""
    found = {"eager": eager, "compiled": torch.compile(eager), "cross_entropy": cross_entropy, "torch_fused": fused}
    found["compiled_cross_entropy"] = torch.compile(cross_entropy)
    for name, package, way in (("trl", "trl", trl), ("liger", "liger_kernel", liger)):
        if importlib.util.find_spec(package) is not None:
            found[name] = way
    return found | {"gopd": gopd}


def work(vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, dtype=dtype, requires_grad=True)
    weight = (torch.randn(vocabulary, HIDDEN) * 0.05).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (TOKENS,))


def both_ways(way: Way, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Forward and backward, from no gradients."""
    for tensor in inputs[:2]:
        tensor.grad = None
    total = way(*inputs)
    total.backward()
    return total.detach()


def alone(name: str, vocabulary: int, dtype: str) -> float:
    return peak_of(partial(both_ways, ways()[name], work(vocabulary, DTYPES[dtype])))


def error(way: Way, inputs: tuple[Tensor, Tensor, Tensor], exact: Tensor) -> float:
    """Relative error of the hidden states' gradient against float64."""
    both_ways(way, inputs)
    assert inputs[0].grad is not None
    return float((inputs[0].grad.double() - exact).norm() / exact.norm())


def exact_gradient(inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    hidden, weight = (tensor.detach().double().requires_grad_() for tensor in inputs[:2])
    logits = F.linear(hidden, weight)
    (logits.gather(-1, inputs[2][:, None]).squeeze(-1) - logits.logsumexp(-1)).mean().backward()
    assert hidden.grad is not None
    return hidden.grad


def case(vocabulary: int, dtype: str, names: list[str]) -> dict[str, dict[str, Any]]:
    inputs = work(vocabulary, DTYPES[dtype])
    known = ways()
    seconds = medians(in_turns({name: partial(both_ways, known[name], inputs) for name in names}))
    found: dict[str, dict[str, Any]] = {name: {"ms": round(1000 * seconds[name], 1)} for name in names}
    if vocabulary == VOCABULARIES[0]:
        exact = exact_gradient(inputs)
        for name in names:
            found[name]["error"] = error(known[name], inputs, exact)
    for name in ("eager", "gopd"):
        found.setdefault(name, {})["peak_mb"] = round(peak_of_process(__file__, name, vocabulary, dtype), 1)
    return found


def by_speed(found: dict[str, dict[str, Any]]) -> list[str]:
    """The timed ways that are not gopd's, fastest first."""
    return sorted((name for name in found.keys() - {"gopd"} if "ms" in found[name]), key=lambda name: found[name]["ms"])


def nearest(found: dict[str, dict[str, Any]]) -> list[str]:
    """The ways worth running again: the fastest others and gopd."""
    return [*by_speed(found)[:NEAR], "gopd"]


def rows(name: str, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Time against the fastest other way, memory against eager's."""
    other = by_speed(found)[0]
    share = found["gopd"]["peak_mb"] / found["eager"]["peak_mb"]
    return [
        row(
            "K1", f"{name}: time, times the fastest ({other})", found["gopd"]["ms"] / found[other]["ms"], "x", "<= 1.15"
        ),
        row("K1", f"{name}: peak memory, share of eager's", share, "share", "<= 0.2"),
    ]


def main() -> None:
    cases, summary = {}, []
    names = dict.fromkeys(DTYPES, list(ways()))
    for vocabulary in VOCABULARIES:
        for dtype in DTYPES:
            name = f"V={vocabulary} {dtype}"
            cases[name] = found = case(vocabulary, dtype, names[dtype])
            names[dtype] = nearest(found)
            summary += rows(name, found)
            print(f"{name}: {json.dumps(found)}", flush=True)
            bars = {
                way: {key: each[way]["ms"] / 1000 for key, each in cases.items() if "ms" in each.get(way, {})}
                for way in ways()
            }
            plot = {"title": "Log-probs, forward and backward", "y": "seconds", "bars": bars}
            file = write("head", {"tokens": TOKENS, "hidden": HIDDEN, "cases": cases, "summary": summary, "plot": plot})
    print(file)


if __name__ == "__main__":
    print(alone(sys.argv[1], int(sys.argv[2]), sys.argv[3])) if len(sys.argv) > 1 else main()
