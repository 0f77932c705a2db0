"""Who is how good: base and teachers once at the start, everybody in a table at the end."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from gopd_callbacks.contest import Accuracy, contest_of, contestant, frozen_contestants, rollout_of
from gopd_callbacks.sample_store import write_whole
from gopd_lightning.records import Row
from gopd_lightning.rollouts import Sampling

Figures = dict[str, dict[str, dict[str, float]]]


class Baselines(Callback):
    """Measures base and teachers on the validation prompts before the first step, into `baselines.json`.

    The validation curve of the student can then be read against its teachers' lines. A resumed run keeps the
    file that it finds.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, unless the run folder knows already."""
        file = Path(trainer.default_root_dir) / "baselines.json"
        if not trainer.strategy.broadcast(not file.exists()):
            return
        sampling = rollout_of(trainer).eval_sampling
        figures: Figures = {}
        for name, (found,) in _measured(trainer, pl_module, "val", frozen_contestants(pl_module), (sampling,)):
            figures[name] = {dataset: {f"avg@{sampling.n}": accuracy.mean} for dataset, accuracy in found.items()}
        if trainer.is_global_zero:
            write_json(figures, file)


class Results(Callback):
    """At the end of a fit, measures base, teachers and student on the test prompts: `results.json` and a table.

    The test prompts are used here and nowhere else. Both columns are always there: accuracy of samples at the
    evaluation temperature, and greedy, so that sharpening is told apart from capability.

    Args:
        samples: k of avg@k.
        file: Name in the run folder.
    """

    def __init__(self, samples: int = 4, file: str = "results.json") -> None:
        self.samples = samples
        self.file = file
        self._shown = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, write, print. A run that was stopped early has no result yet."""
        self._finish(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do the same for a run that was complete before it was resumed, which trains nothing."""
        self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure unless the run folder knows the figures of this very step; print once."""
        if self._shown or trainer.interrupted or trainer.global_step < trainer.max_steps:
            return
        if not trainer.datamodule.prompts["test"]:  # type: ignore[attr-defined]
            return
        self._shown = True
        file = Path(trainer.default_root_dir) / self.file
        known = trainer.strategy.broadcast(_known(file, trainer.global_step))
        figures = known or self._measure(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        if not known:
            write_json(figures, file)
        Console().print(table(figures))

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> Figures:
        """Figures of every model by data set."""
        sampled = replace(rollout_of(trainer).eval_sampling, n=self.samples)
        names = [*frozen_contestants(pl_module), "student"]
        figures: Figures = {}
        for name, (many, one) in _measured(trainer, pl_module, "test", names, (sampled, sampled.greedy())):
            step = trainer.global_step if name == "student" else 0
            figures[name] = {d: _figures(many[d], one[d], self.samples, step) for d in many}
        return figures


def _measured(
    trainer: Trainer, module: LightningModule, split: str, names: Sequence[str], samplings: Sequence[Sampling]
) -> Iterator[tuple[str, list[dict[str, Accuracy]]]]:
    """Every model's accuracies under each sampling; answers are graded while the next model gives its own."""
    contest = contest_of(rollout_of(trainer), trainer, module, split)
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as aside:
        grading: dict[str, list[Future[list[Row]]]] = {}
        for name in names:
            with contestant(module, name) as model:
                grading[name] = [aside.submit(contest.graded, contest.answers(name, model, s)) for s in samplings]
            if trainer.is_global_zero:
                _tell(split, name, len(grading), len(names), time.perf_counter() - began)
        for name, parts in grading.items():
            pairs = zip(parts, samplings, strict=True)
            yield name, [contest.accuracy(part.result(), sampling.n) for part, sampling in pairs]


def _tell(split: str, name: str, done: int, models: int, seconds: float) -> None:
    """A line of progress."""
    left = seconds / done * (models - done)
    line = f"{split} prompts: {name} answered, {done}/{models}, {seconds:.0f} s, {left:.0f} s left"
    print(line, file=sys.stderr, flush=True)


def table(figures: Figures) -> Table:
    """The results as a table: a row a model, avg@k and greedy a data set, with standard errors.

    Args:
        figures: By model and data set: avg@k, stderr, greedy, greedy_stderr, n.
    """
    first = next(iter(figures.values()), {})
    out = Table(title="Accuracy on held-out prompts, % (± standard error)")
    out.add_column("model")
    for dataset, entry in first.items():
        key = next(k for k in entry if k.startswith("avg@"))
        out.add_column(f"{dataset}\n{key}", justify="right")
        out.add_column(f"{dataset}\ngreedy", justify="right")
    for name, by_dataset in figures.items():
        cells = []
        for entry in by_dataset.values():
            key = next(k for k in entry if k.startswith("avg@"))
            cells += [_cell(entry[key], entry["stderr"]), _cell(entry["greedy"], entry["greedy_stderr"])]
        out.add_row(name, *cells, style="bold" if name == "student" else None)
    return out


def write_json(content: Any, file: Path) -> None:
    """Write a JSON file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(json.dumps(content, indent=2, ensure_ascii=False) + "\n", file)


def _known(file: Path, step: int) -> Figures | None:
    """The figures of a results file of this very step, if there is one."""
    if not file.exists():
        return None
    figures: Figures = json.loads(file.read_text())
    steps = {entry["step"] for entry in figures["student"].values()}
    return figures if steps == {step} else None


def _figures(many: Accuracy, one: Accuracy, samples: int, step: int) -> dict[str, float]:
    """One cell group of the results file; `step` counts the optimizer steps of this run that the model has seen."""
    return {
        f"avg@{samples}": many.mean,
        "stderr": many.stderr,
        "greedy": one.mean,
        "greedy_stderr": one.stderr,
        "n": many.prompts,
        "step": step,
    }


def _cell(mean: float, stderr: float) -> str:
    return f"{100 * mean:.1f} ± {100 * stderr:.1f}"
