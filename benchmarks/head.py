"""K1: log-probs of sampled tokens from hidden states, forward and backward: `.venv/bin/python benchmarks/head.py`.

1024 tokens, hidden size 576, vocabularies of SmolLM2 and Qwen3, float32 and bfloat16 weights. Ways: plain eager (all
logits at once), the same compiled, and gopd's chunks, compiled chunks. Peak memory is that of a process of its own.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from side_by_side import in_turns, medians, write
from torch import Tensor

from gopd_lightning.logprobs import Head, States, token_logprobs

TOKENS, HIDDEN = 1024, 576
VOCABULARIES = (49152, 151936)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def plain(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """All logits at once."""
    logits = F.linear(hidden, weight).float()
    return logits.gather(-1, ids[:, None]).squeeze(-1) - logits.logsumexp(-1)


def chunked(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """Gopd's."""
    return token_logprobs(States(hidden, Head(weight)), ids).logprobs


def native(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """Torch's cross entropy on all logits."""
    return -F.cross_entropy(F.linear(hidden, weight).float(), ids, reduction="none")


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "eager": plain,
    "compiled": torch.compile(plain),
    "cross_entropy": native,
    "compiled_cross_entropy": torch.compile(native),
    "gopd": chunked,
}


def work(vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, dtype=dtype, requires_grad=True)
    weight = (torch.randn(vocabulary, HIDDEN) * 0.05).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (TOKENS,))


def both_ways(way: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    """Forward and backward."""
    for tensor in inputs[:2]:
        if tensor.grad is not None:
            tensor.grad.zero_()
    way(*inputs).mean().backward()


def peak_mb(name: str, vocabulary: int, dtype: str) -> float:
    """Peak memory above what the inputs and their gradients take, measured in a process of its own."""
    command = [sys.executable, __file__, name, str(vocabulary), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def alone(name: str, vocabulary: int, dtype: str) -> None:
    inputs = work(vocabulary, DTYPES[dtype])
    both_ways(WAYS[name], inputs)  # gradients are there, and the compiler has done its work
    Path("/proc/self/clear_refs").write_text("5")  # begins to look for a new peak
    before = status("VmRSS")
    both_ways(WAYS[name], inputs)
    print((status("VmHWM") - before) / 1024)


def status(key: str) -> int:
    """A line of this process's status, in KiB."""
    text = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(key)))


def error(way: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor, Tensor]) -> float:
    """Largest difference to float64."""
    with torch.no_grad():
        exact = plain(inputs[0].double(), inputs[1].double(), inputs[2])
        return float((way(*inputs).double() - exact).abs().max())


def case(vocabulary: int, dtype: str) -> dict[str, Any]:
    inputs = work(vocabulary, DTYPES[dtype])
    seconds = medians(in_turns({name: partial(both_ways, way, inputs) for name, way in WAYS.items()}))
    return {
        name: {
            "ms": round(1000 * seconds[name], 1),
            "peak_mb": round(peak_mb(name, vocabulary, dtype), 1),
            "error": error(way, inputs),
        }
        for name, way in WAYS.items()
    }


def main() -> None:
    cases = {}
    for vocabulary in VOCABULARIES:
        for dtype in DTYPES:
            cases[f"V={vocabulary} {dtype}"] = found = case(vocabulary, dtype)
            print(f"V={vocabulary} {dtype}: {json.dumps(found)}", flush=True)
            file = write("head", {"tokens": TOKENS, "hidden": HIDDEN, "cases": cases})
    print(file)


if __name__ == "__main__":
    alone(*sys.argv[1:2], int(sys.argv[2]), sys.argv[3]) if len(sys.argv) > 1 else main()
