"""The text of `gopd plan`."""

from collections.abc import Mapping
from typing import Any

from gopd_lightning.planning.advice import advice
from gopd_lightning.planning.devices import Device, device_of
from gopd_lightning.planning.memory import memory_of, needs_of
from gopd_lightning.planning.seconds import seconds_of
from gopd_lightning.planning.settings import Run, run_of


class Plan:
    """Memory and seconds of one rank.

    Args:
        trainer: Settings of the Trainer, not built.
        module: The module; its models are looked at, not loaded.
        data: The data module.
        gpu: A GPU's name, `cpu`, or None for what the run would use here.
        prompt_tokens: Tokens of a prompt; None takes the longest allowed.
        response_tokens: Tokens of a response; None takes the longest allowed.

    Attributes:
        device: What it was made for.
        stays: Bytes that stay in memory, by name.
        phases: Bytes that each phase adds, by name.
        seconds: Seconds by phase, or None.
        advice: What to change; empty where the run fits.
    """

    def __init__(
        self,
        trainer: Mapping[str, Any],
        module: Any,
        data: Any,
        gpu: str | None = None,
        prompt_tokens: int | None = None,
        response_tokens: int | None = None,
    ) -> None:
        assert module.config is not None  # looks at the files of every model
        self.run: Run = run_of(trainer, module, data, prompt_tokens, response_tokens)
        self.device: Device = device_of(gpu, self.run.accelerator, self.run.ranks_of_node)
        needs = needs_of(self.run, module)
        self.stays, self.phases = memory_of(self.run, module, needs, self.device)
        self.seconds = seconds_of(self.run, module, needs, self.device)
        worst = self.worst
        self.advice = [] if self.fits else advice(self.run, module, self.stays, worst, self.phases[worst])

    @property
    def worst(self) -> str:
        """The phase that needs the most memory."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> int:
        """Bytes of a rank at their most."""
        return sum(self.stays.values()) + sum(self.phases[self.worst].values())

    @property
    def fits(self) -> bool:
        """Whether a rank's device holds the peak."""
        return self.peak <= self.device.memory


def plan_text(plan: Plan) -> str:
    """A plan as a table and a verdict.

    Args:
        plan: The plan.
    """
    run, worst = plan.run, plan.worst
    strategy = "FSDP2" if run.fsdp else "ddp" if run.ddp else "one process"
    shared = f", models in {run.parts} parts" if run.parts > 1 else ""
    lines = [
        f"{run.ranks} rank(s), {strategy}{shared}; a step on each: {run.rows} rows of at most {run.prompt} + "
        f"{run.response} tokens",
        "",
        "A rank's memory in GB, all the time:",
        *_rows(plan.stays),
    ]
    for phase, parts in plan.phases.items():
        note = "  <- the most" if phase == worst else ""
        lines += [f"and while it runs {phase}:{note}", *_rows(parts)]
    lines += ["", *_time(plan), _verdict(plan)]
    return "\n".join(lines + [f"  - {words}" for words in plan.advice])


def _rows(parts: Mapping[str, int]) -> list[str]:
    return [f"  {name:<22}{size / 1e9:>9.3f}" for name, size in parts.items() if size]


def _time(plan: Plan) -> list[str]:
    if plan.seconds is None:
        return ["Seconds of a step: not known for layers of this kind"]
    parts = ", ".join(f"{name} {seconds:.2g}" for name, seconds in plan.seconds.items() if name != "step")
    return [f"A step takes {plan.seconds['step']:.2g} s at least ({parts}) at all of the device's speed, no waiting"]


def _verdict(plan: Plan) -> str:
    peak, memory, name = plan.peak / 1e9, plan.device.memory / 1e9, plan.device.name
    if plan.run.engine is not None and not plan.run.engine.inside:
        name += f"; {plan.run.engine.name} takes its own share besides"
    if plan.fits:
        return f"Peak {peak:.2f} of {memory:.0f} GB a rank ({name}): it fits"
    return f"Peak {peak:.2f} of {memory:.0f} GB a rank ({name}): it does not fit. Change, what helps most first:"
