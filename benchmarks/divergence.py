"""K2: the divergence to the lambda target over the whole vocabulary: `.venv/bin/python benchmarks/divergence.py`.

512 tokens, three models of different hidden sizes over one vocabulary, forward and backward, lambda 1 and 1.25. Peers:
all logits at once (eager), and TRL's chunked kernel, which knows two models: at lambda 1.25 it is given teacher and
reference folded into one head on concatenated hidden states. Peak memory is that of a process of its own.
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

from gopd_lightning.logprobs import Head, States
from gopd_lightning.losses import divergence_loss

TOKENS, VOCABULARY = 512, 49152
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HIDDEN = {"student": 576, "teacher": 960, "reference": 576}
SCALES = (1.0, 1.25)
Models = dict[str, States]


def work(dtype: torch.dtype) -> Models:
    torch.manual_seed(0)
    models = {}
    for name, width in HIDDEN.items():
        weight = torch.randn(VOCABULARY, width) * (2 / width**0.5)
        models[name] = States(torch.randn(TOKENS, width, dtype=dtype), Head(weight.to(dtype)))
    for tensor in (models["student"].hidden, models["student"].head.weight):
        tensor.requires_grad_()
    return models


def eager(models: Models, scale: float) -> Tensor:
    """All logits of all models at once."""
    with torch.no_grad():
        target = models["teacher"].head.logits(models["teacher"].hidden)
        if scale != 1.0:
            reference = models["reference"].head.logits(models["reference"].hidden)
            target = scale * target + (1 - scale) * reference
        log_q = target.log_softmax(-1)
    log_s = models["student"].head.logits(models["student"].hidden).log_softmax(-1)
    return F.kl_div(log_q, log_s, reduction="none", log_target=True).sum(-1).mean()


def folded(models: Models, scale: float) -> tuple[Tensor, Tensor]:
    """Hidden states and head of the one teacher whose logits are the target's."""
    teacher, reference = models["teacher"], models["reference"]
    if scale == 1.0:
        return teacher.hidden, teacher.head.weight
    hidden = torch.cat([scale * teacher.hidden, (1 - scale) * reference.hidden], 1)
    return hidden, torch.cat([teacher.head.weight, reference.head.weight], 1)


def trl(models: Models, scale: float, fold: tuple[Tensor, Tensor]) -> Tensor:
    """TRL's kernel: Jensen-Shannon divergence with beta 1, which is KL(S || Q)."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    student = models["student"]
    arguments = (student.hidden, student.head.weight, None, fold[0], fold[1], None, 1.0)
    return ChunkedDivergenceFunction.apply(*arguments)[0].mean()  # type: ignore[no-any-return]


def gopd(models: Models, scale: float) -> Tensor:
    ids, weights = torch.zeros(TOKENS, dtype=torch.long), torch.full((TOKENS,), 1 / TOKENS)
    return divergence_loss(models["student"], models["teacher"], models["reference"], scale, ids, weights).total


def ways(models: Models, scale: float) -> dict[str, Callable[[], Tensor]]:
    """What there is to compare on this machine."""
    found = {"eager": partial(eager, models, scale)}
    if importlib.util.find_spec("trl") is not None:
        found["trl"] = partial(trl, models, scale, folded(models, scale))
    return found | {"gopd": partial(gopd, models, scale)}


def both_ways(models: Models, way: Callable[[], Tensor]) -> Tensor:
    """Forward and backward, from no gradients."""
    models["student"].hidden.grad = models["student"].head.weight.grad = None
    total = way()
    total.backward()
    return total.detach()


def alone(name: str, scale: float, dtype: str) -> float:
    models = work(DTYPES[dtype])
    return peak_of(partial(both_ways, models, ways(models, scale)[name]))


def exact(models: Models, scale: float) -> tuple[float, Tensor]:
    """The divergence and the gradient of the student's hidden states in float64, a few rows at a time."""
    total, parts = 0.0, []
    heads = {name: Head(states.head.weight.detach().double()) for name, states in models.items()}
    for start in range(0, TOKENS, 64):
        hidden = {name: states.hidden[start : start + 64].detach().double() for name, states in models.items()}
        hidden["student"].requires_grad_()
        log = {name: F.linear(hidden[name], heads[name].weight).log_softmax(-1) for name in models}
        log_q = (scale * log["teacher"] + (1 - scale) * log["reference"]).log_softmax(-1)
        part = (log["student"].exp() * (log["student"] - log_q)).sum() / TOKENS
        parts += torch.autograd.grad(part, hidden["student"])
        total += float(part.detach())
    return total, torch.cat(parts)


def errors(models: Models, way: Callable[[], Tensor], truth: tuple[float, Tensor]) -> dict[str, float]:
    """Relative errors of the divergence and of the hidden states' gradient against float64."""
    total = float(both_ways(models, way))
    gradient = models["student"].hidden.grad
    assert gradient is not None
    distance = (gradient.double() - truth[1]).norm() / truth[1].norm()
    return {"error": abs(total - truth[0]) / truth[0], "gradient_error": float(distance)}


def case(scale: float, dtype: str) -> dict[str, dict[str, Any]]:
    models = work(DTYPES[dtype])
    found, truth = ways(models, scale), exact(models, scale) if dtype == "float32" else None
    seconds = medians(in_turns({name: partial(both_ways, models, way) for name, way in found.items()}))
    figures: dict[str, dict[str, Any]] = {name: {"ms": round(1000 * seconds[name], 1)} for name in found}
    for name in ("eager", "gopd"):
        figures[name]["peak_mb"] = round(peak_of_process(__file__, name, scale, dtype), 1)
    for name, way in found.items() if truth else ():
        figures[name] |= errors(models, way, truth)
    return figures


def rows(name: str, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Time against TRL's and eager, memory against eager's, exactness in float32."""
    ours, summary = found["gopd"], []
    if "trl" in found:
        summary.append(
            row("K2", f"{name}: times as fast as TRL's kernel", found["trl"]["ms"] / ours["ms"], "x", ">= 2")
        )
    summary.append(row("K2", f"{name}: times as fast as eager", found["eager"]["ms"] / ours["ms"], "x"))
    summary.append(
        row("K2", f"{name}: peak memory, share of eager's", ours["peak_mb"] / found["eager"]["peak_mb"], "share")
    )
    if "float32" in name:
        summary.append(row("K2", f"{name}: relative error against float64", ours["gradient_error"], "", "<= 1e-6"))
    return summary


def main() -> None:
    cases, summary = {}, []
    for scale in SCALES:
        for dtype in DTYPES:
            name = f"lambda {scale:g} {dtype}"
            cases[name] = found = case(scale, dtype)
            summary += rows(name, found)
            print(f"{name}: {json.dumps(found)}", flush=True)
            bars = {way: {key: each[way]["ms"] / 1000 for key, each in cases.items()} for way in found}
            plot = {"title": "Divergence to the lambda target", "y": "seconds", "bars": bars}
            shape = {"tokens": TOKENS, "vocabulary": VOCABULARY, "hidden": HIDDEN}
            file = write("divergence", {**shape, "cases": cases, "summary": summary, "plot": plot})
    print(file)


if __name__ == "__main__":
    print(alone(sys.argv[1], float(sys.argv[2]), sys.argv[3])) if len(sys.argv) > 1 else main()
