"""`gopd test` as a measurement: every sample kept, found again after a kill, and every figure with its interval."""

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from rich.console import Console

from gopd_callbacks.evaluation_report import results_table, summary, ungraded
from gopd_callbacks.panel import Tally
from gopd_callbacks.rollout import Rollout
from gopd_callbacks.sample_store import SampleStore, write_whole
from gopd_lightning.errors import InputError
from gopd_lightning.models.fingerprint import weights_digest
from gopd_lightning.modules.evaluation import EvaluationMetrics
from gopd_lightning.records import Batch, Prompt, Row
from gopd_lightning.rollouts import RolloutEngine, Sampling, sample_pairs
from gopd_lightning.verifiers import Verifier

_WIDTH = 100  # of the table where there is no terminal to ask


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
    ) -> None:
        super().__init__(engine=engine, sampling=sampling, verifiers=verifiers, seed=seed)
        self.tally = Tally("samples", 0, unit="sample")
        self._store: SampleStore | None = None
        self._report: Any = None

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

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the samples that are there already."""
        module: Any = pl_module
        self._prompts: list[Prompt] = trainer.datamodule.prompts["test"]  # type: ignore[attr-defined]
        self._model: dict[str, Any] = trainer.strategy.broadcast(_model(module) if trainer.is_global_zero else {})
        name = f"{_name(module.spec.path)}-{self._key()}"
        self._store = SampleStore(Path(trainer.default_root_dir) / name, trainer.global_rank)
        self._metrics = EvaluationMetrics(self._prompts, pl_module.device)
        loader: Any = trainer.datamodule.test_dataloader()  # type: ignore[attr-defined]
        own = sum(len(batch.prompts) for batch in loader)
        self.tally.restart(total=own * self.sampling.n)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the data sets' files and the summary."""
        assert self._store is not None
        figures = self._metrics.figures()
        self._store.close()
        trainer.strategy.barrier("all samples are on disk")
        if not trainer.is_global_zero:
            return
        files = self._store.finish(self._prompts, self.sampling.n)
        report = summary(self._produced_by(), figures, files, self._store.folder.name)
        write_whole(json.dumps(report, indent=2, ensure_ascii=False) + "\n", self._store.folder / "summary.json")
        self._report = (report, self._store.folder)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show the table, now that no progress display is in its way."""
        if self._report is not None:
            report, folder = self._report
            console = Console(width=None if sys.stdout.isatty() else _WIDTH)
            console.print(results_table(report))
            for line in ungraded(report):
                console.print(line, style="bold red", highlight=False)
            console.print(f"every sample and summary.json: {folder}", soft_wrap=True, highlight=False)
        self._report = None

    def _fill(
        self, trainer: Trainer, module: Any, batch: Batch, sampling: Sampling, step: int | str, verify: bool
    ) -> None:
        """Sample what is missing, grade everything, keep it."""
        assert self._store is not None
        self.engine.wake()
        self.engine.sync(module.student, trainer.global_step)
        pairs = [(prompt, k) for prompt in batch.prompts for k in range(sampling.n)]
        found = [self._store.known(*pair, trainer.global_step) for pair in pairs]
        rows = {(row.prompt.uid, row.sample): row for row in found if row is not None}
        self.tally.done += len(rows)
        missing = [pair for pair, row in zip(pairs, found, strict=True) if row is None]
        began = time.perf_counter()

        def keep(row: Row) -> None:
            rows[row.prompt.uid, row.sample] = row
            self._store.add([row], time.perf_counter() - began)  # type: ignore[union-attr]
            self.tally.done += 1

        seed = (self.seed, "evaluation")
        sample_pairs(self.engine, missing, sampling, seed, module.tokenizer, module.vocabulary, keep)
        self.engine.sleep()
        batch.rows = [rows[prompt.uid, k] for prompt, k in pairs]
        self.grading(batch.rows)
        self._store.add(batch.rows)
        self._metrics.update(batch.rows)
        self.tally.count([row.reward or 0.0 for row in batch.rows])

    def _key(self) -> str:
        """What samples depend on besides their prompt, as 8 hexadecimal digits."""
        settings = {name: value for name, value in asdict(self.sampling).items() if name != "n"}
        parts = (self._model["weights"], self._model["dtype"], settings, self.seed, type(self.engine).__name__)
        return hashlib.blake2b(repr(parts).encode(), digest_size=4).hexdigest()

    def _produced_by(self) -> dict[str, Any]:
        return {
            "model": self._model,
            "sampling": asdict(self.sampling),
            "seed": self.seed,
            "engine": f"{type(self.engine).__module__}.{type(self.engine).__qualname__}",
            "verifiers": self.verifiers,
            "prompts": self._prompts,
        }


def _check_ids(prompts: Sequence[Prompt]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for prompt in prompts:
        other = seen.setdefault((prompt.dataset, prompt.id), prompt.source)
        if other != prompt.source:
            raise InputError(
                f"{prompt.source}: the id {prompt.id!r} of {prompt.dataset} is taken by {other}; samples are kept by "
                "id: make ids unique, or give each file a `name`"
            )


def _model(module: Any) -> dict[str, Any]:
    spec = module.spec
    return {
        "path": spec.path,
        "weights": weights_digest(spec.path),
        "dtype": spec.dtype,
        "chat_template_kwargs": spec.chat_template_kwargs,
    }


def _name(path: str) -> str:
    """What people call the model: the last part of its path, or the run's when that is `student`."""
    place = Path(path).resolve() if Path(path).exists() else Path(path)
    return place.parent.name if place.name == "student" else place.stem if place.suffix == ".gguf" else place.name
