"""The least seconds of a step by phase: FLOPs and bytes at the device's rates."""

from typing import Any

import torch

from gopd_lightning.cost import ADAM_BYTES, Lengths, Member, Models, Work, step_work
from gopd_lightning.planning.devices import Device
from gopd_lightning.planning.memory import Needs
from gopd_lightning.planning.settings import Run, loaded


def seconds_of(run: Run, module: Any, needs: Needs, device: Device) -> dict[str, float] | None:
    """Seconds of the phases of a step, without communication.

    Args:
        run: The run.
        module: The module.
        needs: Of the models.
        device: The rank's device.

    Returns:
        Seconds by phase and of the `step`; None where the cost of a model is not known by its shape.
    """
    student = _member(needs.student.cost, needs.dtype, device)
    engine = _member(needs.student.cost, (run.engine and run.engine.dtype) or needs.dtype, device)
    frozen = {
        name: _member(needs.frozen[name].cost, run.autocast or getattr(torch, spec.dtype), device)
        for name, spec in loaded(module).items()
    }
    known = {name: member for name, member in frozen.items() if member is not None}
    if student is None or engine is None or len(known) < len(frozen):
        return None
    models = Models(student, engine, known, ADAM_BYTES * needs.student.trained // run.parts)
    rows = {name: _lengths(run, _share(module, name)) for name in known} | {"student": _lengths(run, 1.0)}
    found = step_work(models, rows, sampled=run.engine is not None, heads_in_scoring="hidden" not in module.needs)
    phases = {name: work.limit_s for name, work in found.items() if work != Work(0.0, 0.0)}
    return phases | {"step": sum(phases.values())}


def _member(cost: Any, dtype: torch.dtype, device: Device) -> Member | None:
    return None if cost is None else Member(cost, dtype, device.rates(dtype))


def _share(module: Any, name: str) -> float:
    """The share of the rows that a frozen model scores, where every domain has as many."""
    routes = module.routing.routes
    return sum(name in route.models for route in routes.values()) / len(routes)


def _lengths(run: Run, share: float) -> list[Lengths]:
    return [Lengths(run.prompt, (run.response,) * run.samples)] * max(1, round(run.prompts * share))
