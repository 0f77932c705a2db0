"""Look before you train: how good the extrapolated target is, and where its cliff is, by lambda."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich import box
from rich.console import Console
from rich.table import Table

from gopd_callbacks.evaluation import WIDTH, Evaluation, model_facts
from gopd_callbacks.evaluation_report import ungraded
from gopd_callbacks.measurement import Measured
from gopd_callbacks.plot import COLOURS, save
from gopd_callbacks.results import write_json
from gopd_lightning.errors import InputError
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.modules.routing import Route
from gopd_lightning.rollouts import Sampling
from gopd_lightning.rollouts.target_engine import TargetEngine
from gopd_lightning.verifiers import Verifier

Curve = dict[str, list[dict[str, Any]]]


class TargetCurve(Evaluation):
    """Samples the target softmax(lambda log T + (1 - lambda) log R) of a distillation at several lambdas, untrained.

    Takes the place of `Rollout` for `gopd test` with a method's own config: the teachers, the reference and the test
    prompts are the run's. 0 is the reference, 1 the teacher. Leaves `target.json` and `target.png` in the run folder,
    and for each lambda and way of sampling a folder as `Evaluation` does, which `gopd compare` reads. The test prompts
    of a run are to judge what was chosen: choose lambda on others (`--data.test` with the validation files).

    Args:
        sampling: How responses are drawn; each prompt is answered greedily as well.
        verifiers: The verifier of each domain; each domain of the data needs one.
        reward_scales: The lambdas.
        seed: First part of every sampling seed; null takes `seed_everything`.

    Raises:
        InputError: No lambda, or one twice.

    Example::

        callbacks:
          - class_path: gopd_callbacks.TargetCurve
            init_args:
              reward_scales: [0, 1, 1.5, 2]
              sampling: {n: 4, max_new_tokens: 1024}
              verifiers: {math: {class_path: gopd_lightning.verifiers.MathVerifier}}
    """

    def __init__(
        self,
        sampling: Sampling,
        verifiers: dict[str, Verifier],
        reward_scales: Sequence[float] = (0, 0.5, 1, 1.25, 1.5, 2, 3),
        seed: int | None = None,
    ) -> None:
        super().__init__(sampling=sampling, verifiers=verifiers, seed=seed)
        if not reward_scales or len(set(reward_scales)) < len(reward_scales):
            raise InputError(f"TargetCurve.reward_scales is {list(reward_scales)}: give different numbers")
        self.reward_scales = sorted(reward_scales)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check settings and ground truths, and that there is a target, before any weights load.

        Raises:
            InputError: A module without teachers, a teacher without a reference, or models that read prompts
                differently.
        """
        routes: Mapping[str, Route] = pl_module.routing.routes  # type: ignore[union-attr, assignment]
        if not routes:
            raise InputError("TargetCurve: the model has no teachers: use the config of a gopd_lightning.GOPD run")
        if any(route.reference is None for route in routes.values()):
            raise InputError(
                "TargetCurve: at a reward_scale of 1 there is no reference: set model.reward_scale to anything else "
                "(the curve has its own), and model.reference"
            )
        super().setup(trainer, pl_module, stage)
        for prompt in trainer.datamodule.prompts.get("test", ()):  # type: ignore[attr-defined]
            if any(prompt.ids_for(name) != prompt.ids for name in routes[prompt.domain].models):
                raise InputError(
                    f"{prompt.source}: teacher and reference of {prompt.domain!r} read the prompt by another chat "
                    "template than the student; their distributions can only be mixed on the same tokens"
                )

    def measured(self, module: Any, domains: Collection[str]) -> list[Measured]:
        """The target at every lambda, sampled and greedy."""
        device = module.trainer.strategy.root_device
        bank = FrozenBank(module.routing.specs, module.vocabulary.size, device, module.frozen_temperature)
        facts = {name: model_facts(module, spec) for name, spec in module.routing.specs.items()}
        routes = {domain: module.routing.routes[domain] for domain in sorted(domains)}
        return [
            Measured(
                name=f"target-{scale:g}{'' if sampling.temperature else '-greedy'}",
                model=_facts(facts, routes, scale),
                sampling=sampling,
                engines={d: TargetEngine(bank, r.teacher, str(r.reference), scale) for d, r in routes.items()},
                seed=self.seed,
            )
            for scale in self.reward_scales
            for sampling in (self.sampling, self.sampling.greedy())
        ]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and show the curve."""
        if not self._reports:
            return
        folder = Path(trainer.default_root_dir)
        reports = [report for report, _ in self._reports]
        curve = _curve(reports, self.sampling.n)
        write_json({"sampling": asdict(self.sampling), "seed": self.seed, "sets": curve}, folder / "target.json")
        draw(curve, folder / "target.png")
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        console.print(table(curve))
        for line in [line for report in reports for line in ungraded(report)]:
            console.print(line, style="bold red", highlight=False)
        console.print(f"the curve: {folder / 'target.png'} and target.json", soft_wrap=True, highlight=False)
        self._reports = []


def _facts(facts: Mapping[str, dict[str, Any]], routes: Mapping[str, Route], scale: float) -> dict[str, Any]:
    """What the samples at one lambda depend on."""
    models = {
        domain: {"teacher": facts[r.teacher], "reference": facts[str(r.reference)]} for domain, r in routes.items()
    }
    digests = [(d, m["teacher"]["weights"], m["reference"]["weights"]) for d, m in models.items()]
    dtypes = [(m["teacher"]["dtype"], m["reference"]["dtype"]) for m in models.values()]
    return {"path": "target", "weights": [scale, digests], "dtype": dtypes, "reward_scale": scale, "models": models}


def _curve(reports: Sequence[Mapping[str, Any]], samples: int) -> Curve:
    """By data set, a point a lambda: accuracies with intervals, length and entropy."""
    curve: Curve = {}
    for many, one in zip(reports[::2], reports[1::2], strict=True):
        for dataset, entry in many["sets"].items():
            figures = entry["figures"]
            point = {
                "reward_scale": many["model"]["reward_scale"],
                f"avg@{samples}": figures[f"avg@{samples}"],
                "greedy": one["sets"][dataset]["figures"]["avg@1"],
                "length": figures["length"],
                "entropy": figures["surprisal"],
                "truncated": figures["truncated"],
            }
            curve.setdefault(dataset, []).append(point)
    return curve


def table(curve: Curve) -> Table:
    """The curve as a table: a row a lambda and data set, accuracies in per cent with their standard errors.

    Args:
        curve: By data set, a point a lambda.
    """
    out = Table(title="The target by lambda, untrained", box=box.SIMPLE_HEAD, pad_edge=False)
    average = next(key for key in next(iter(curve.values()))[0] if key.startswith("avg@"))
    for title in ("set", "lambda", f"{average}, %", "greedy, %", "tokens", "entropy, nats/token"):
        out.add_column(title, justify="left" if title == "set" else "right", no_wrap=True)
    for dataset, points in curve.items():
        for point in points:
            shares = [f"{100 * point[k]['mean']:.1f} ± {100 * point[k]['stderr']:.1f}" for k in (average, "greedy")]
            rest = (f"{point['length']['mean']:.1f}", f"{point['entropy']['mean']:.4f}")
            out.add_row(dataset, f"{point['reward_scale']:g}", *shares, *rest)
        out.add_section()
    return out


def draw(curve: Curve, out: Path) -> None:
    """Draw accuracy (sampled and greedy), length and entropy by lambda.

    Args:
        curve: By data set, a point a lambda.
        out: The PNG; written whole or not at all.
    """
    figure = Figure(figsize=(13, 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    for colour, (dataset, points) in zip(COLOURS, curve.items(), strict=False):
        average = next(key for key in points[0] if key.startswith("avg@"))
        _line(panels[0], points, average, colour, "o-", f"{dataset}: {average}")
        _line(panels[0], points, "greedy", colour, "s--", f"{dataset}: greedy")
        _line(panels[1], points, "length", colour, "o-", dataset)
        _line(panels[2], points, "entropy", colour, "o-", dataset)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    titles = ("Accuracy of the target (95 % intervals)", "Response length (tokens)", "Entropy (nats a token)")
    for axes, title in zip(panels, titles, strict=True):
        _finish(axes, title)
    save(figure, out)


def _line(axes: Axes, points: Sequence[Mapping[str, Any]], key: str, colour: str, style: str, label: str) -> None:
    scales = [point["reward_scale"] for point in points]
    means = [point[key]["mean"] for point in points]
    axes.plot(scales, means, style, color=colour, linewidth=1.8, markersize=5, label=label)
    low, high = ([point[key][end] for point in points] for end in ("low", "high"))
    axes.fill_between(scales, low, high, color=colour, alpha=0.12, linewidth=0)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("λ (0: reference, 1: teacher)")
    axes.axvline(1, color="#888888", linewidth=1, linestyle=":")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=9)
