"""`gopd test` as a measurement: every sample kept, found again after a kill, and every figure with its interval."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from rich.console import Console

from gopd_callbacks.evaluation_report import results_table, ungraded
from gopd_callbacks.measurement import Measured, Measurement
from gopd_callbacks.panel import Tally
from gopd_callbacks.rollout import Rollout
from gopd_lightning.errors import InputError
from gopd_lightning.models.fingerprint import weights_digest
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.records import Batch, Prompt
from gopd_lightning.rollouts import RolloutEngine, Sampling
from gopd_lightning.verifiers import Verifier

WIDTH = 100  # of the table where there is no terminal to ask


class Evaluation(Rollout):
    """Takes the place of `Rollout` for `gopd test`, and keeps what it finds.

    In the run folder every model under every setting has a folder of its own, `<model>-<key>`: the key covers the
    weights, the sampling and the seed, and each sample names the prompt that it answers, so that nothing is ever taken
    for something else. It holds one JSONL a data set and `summary.json`; `gopd compare` reads it. A second run samples
    only what is missing (after a kill: what was not finished; with more samples a prompt: the further ones), and
    grades everything anew.

    Args:
        sampling: How responses are drawn; n is k.
        verifiers: The verifier of each domain; each domain of the data needs one.
        engine: What samples; null takes the transformers engine in the trainer's process.
        seed: First part of every sampling seed; null takes `seed_everything`.
        greedy: Also take one greedy answer a prompt, into `greedy-<model>-<key>`. Sharpening a policy changes its
            samples and not its most likely answer: the second table tells the two apart.

    Example::

        callbacks:
          - class_path: gopd_callbacks.Evaluation
            init_args:
              sampling: {n: 32, max_new_tokens: 16384}
              verifiers: {math: {class_path: gopd_lightning.verifiers.MathVerifier}}
    """

    def __init__(
        self,
        sampling: Sampling,
        verifiers: dict[str, Verifier],
        engine: RolloutEngine | None = None,
        seed: int | None = None,
        greedy: bool = False,
    ) -> None:
        super().__init__(engine=engine, sampling=sampling, verifiers=verifiers, seed=seed)
        self.greedy = greedy
        self.tally = Tally("samples", 0, unit="sample")
        self._measurements: list[Measurement] = []
        self._reports: list[tuple[dict[str, Any], Path]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check settings and ground truths before any weights load.

        Args:
            trainer: The trainer; its data module has been set up.
            pl_module: The module.
            stage: fit, validate, test or predict.

        Raises:
            InputError: A prompt limit that leaves no room, a domain without a verifier, a broken ground truth, or an
                id that occurs twice in a data set.
        """
        module: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._check_room(module.config, data.max_prompt_tokens)
        for prompts in data.prompts.values():
            _check_ids(prompts)
            self.grading.check(prompts, must=True)
        self.grading.start({prompt.domain for prompts in data.prompts.values() for prompt in prompts})

    def measured(self, module: Any, domains: Collection[str]) -> list[Measured]:
        """What is measured: the student, here; sampled, and greedy where that is asked for.

        Args:
            module: The LightningModule.
            domains: Domains of the prompts.
        """
        engines = dict.fromkeys(domains, self.engine)
        name, model = _name(module.spec.path), model_facts(module, module.spec)
        sampled = Measured(name=name, model=model, sampling=self.sampling, engines=engines, seed=self.seed)
        if not self.greedy:
            return [sampled]
        return [sampled, replace(sampled, name=f"greedy-{name}", sampling=self.sampling.greedy())]

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the samples that are there already."""
        module: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        prompts: list[Prompt] = data.prompts["test"]
        found = self.measured(module, {prompt.domain for prompt in prompts})
        self._measurements = [Measurement(one, prompts, trainer, pl_module.device) for one in found]
        own = sum(len(batch.prompts) for batch in data.test_dataloader())
        self.tally.restart(total=own * sum(one.sampling.n for one in found))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the data sets' files and the summaries."""
        found = [one.finish(trainer, self.verifiers) for one in self._measurements]
        self._reports = [one for one in found if one is not None]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show the tables, now that no progress display is in their way."""
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        for report, folder in self._reports:
            console.print(results_table(report))
            for line in ungraded(report):
                console.print(line, style="bold red", highlight=False)
            console.print(f"every sample and summary.json: {folder}", soft_wrap=True, highlight=False)
        self._reports = []

    def _fill(
        self, trainer: Trainer, module: Any, batch: Batch, sampling: Sampling, step: int | str, verify: bool
    ) -> None:
        """Measure the batch; its rows are those of the first measurement."""
        version = trainer.global_step
        self.engine.wake()
        self.engine.sync(module.student, version)
        found = [one.fill(batch.prompts, version, module, self.grading, self.tally) for one in self._measurements]
        self.engine.sleep()
        batch.rows = found[0]


def _check_ids(prompts: Sequence[Prompt]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for prompt in prompts:
        other = seen.setdefault((prompt.dataset, prompt.id), prompt.source)
        if other != prompt.source:
            raise InputError(
                f"{prompt.source}: the id {prompt.id!r} of {prompt.dataset} is taken by {other}; samples are kept by "
                "id: make ids unique, or give each file a `name`"
            )


def model_facts(module: Any, spec: ModelSpec) -> dict[str, Any]:
    """What says which model a spec stands for: its path, a digest of its weights, dtype and template arguments.

    Args:
        module: The LightningModule: rank 0 alone reads the files.
        spec: The model.
    """
    digest = weights_digest(spec.path) if module.trainer.is_global_zero else ""
    return {
        "path": spec.path,
        "weights": module.trainer.strategy.broadcast(digest),
        "dtype": spec.dtype,
        "chat_template_kwargs": spec.chat_template_kwargs,
    }


def _name(path: str) -> str:
    """What people call the model: the last part of its path, or the run's when that is `student`."""
    place = Path(path).resolve() if Path(path).exists() else Path(path)
    return place.parent.name if place.name == "student" else place.stem if place.suffix == ".gguf" else place.name
