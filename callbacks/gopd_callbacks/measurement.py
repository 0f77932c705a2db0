"""One policy sampled in one way, as `gopd test` measures it: every sample kept, and every figure with its interval."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from gopd_callbacks.evaluation_report import summary
from gopd_callbacks.grading import Grading
from gopd_callbacks.panel import Tally
from gopd_callbacks.results import write_json
from gopd_callbacks.sample_store import SampleStore
from gopd_lightning.modules.evaluation import EvaluationMetrics
from gopd_lightning.records import Prompt, Row
from gopd_lightning.rollouts import RolloutEngine, Sampling, sample_pairs


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured.

    Attributes:
        name: First part of the folder's name.
        model: What samples depend on, for their key and the summary: `weights`, `dtype` and more.
        sampling: How responses are drawn; n is k.
        engines: What samples the prompts of each domain.
        seed: First part of every sampling seed.
    """

    name: str
    model: dict[str, Any]
    sampling: Sampling
    engines: Mapping[str, RolloutEngine]
    seed: int

    @property
    def engine(self) -> type:
        """The class of the engines."""
        return type(next(iter(self.engines.values())))

    @property
    def folder(self) -> str:
        """The name, with the key of what samples depend on besides their prompt: 8 hexadecimal digits."""
        settings = {name: value for name, value in asdict(self.sampling).items() if name != "n"}
        parts = (self.model["weights"], self.model["dtype"], settings, self.seed, self.engine.__name__)
        return f"{self.name}-{hashlib.blake2b(repr(parts).encode(), digest_size=4).hexdigest()}"


class Measurement:
    """Samples what is missing in a folder of its own, grades everything, and sums it up.

    Args:
        measured: The policy and how it is sampled.
        prompts: All prompts, on all ranks.
        trainer: Gives the run folder and the rank.
        device: Where the ranks' values meet.
    """

    def __init__(self, measured: Measured, prompts: Sequence[Prompt], trainer: Trainer, device: Any) -> None:
        self.measured = measured
        self._prompts = prompts
        self._store = SampleStore(Path(trainer.default_root_dir) / measured.folder, trainer.global_rank)
        self._metrics = EvaluationMetrics(prompts, device)

    def fill(self, prompts: Sequence[Prompt], version: int, module: Any, grading: Grading, tally: Tally) -> list[Row]:
        """Sample what is missing of some prompts, grade everything, keep it.

        Args:
            prompts: Prompts of this rank.
            version: Version of the weights, for the completions.
            module: Gives tokenizer and vocabulary.
            grading: Asks the verifiers.
            tally: Told every sample.

        Returns:
            The graded rows, the samples of one prompt side by side.
        """
        pairs = [(prompt, k) for prompt in prompts for k in range(self.measured.sampling.n)]
        found = [self._store.known(*pair, version) for pair in pairs]
        rows = {(row.prompt.uid, row.sample): row for row in found if row is not None}
        tally.done += len(rows)
        began = time.perf_counter()

        def keep(row: Row) -> None:
            rows[row.prompt.uid, row.sample] = row
            self._store.add([row], time.perf_counter() - began)
            tally.done += 1

        missing = [pair for pair, row in zip(pairs, found, strict=True) if row is None]
        for engine, some in self._by_engine(missing):
            seed = (self.measured.seed, "evaluation")
            sample_pairs(engine, some, self.measured.sampling, seed, module.tokenizer, module.vocabulary, keep)
        graded = [rows[prompt.uid, k] for prompt, k in pairs]
        grading(graded)
        self._store.add(graded)
        self._metrics.update(graded)
        tally.count([row.reward or 0.0 for row in graded])
        return graded

    def _by_engine(
        self, pairs: Sequence[tuple[Prompt, int]]
    ) -> Iterable[tuple[RolloutEngine, list[tuple[Prompt, int]]]]:
        """Each engine with the pairs that it samples: domains that share one are sampled together."""
        for engine in {id(one): one for one in self.measured.engines.values()}.values():
            yield engine, [pair for pair in pairs if self.measured.engines[pair[0].domain] is engine]

    def finish(self, trainer: Trainer, verifiers: Mapping[str, Any]) -> tuple[dict[str, Any], Path] | None:
        """Write the data sets' files and the summary (a collective).

        Args:
            trainer: The trainer.
            verifiers: By domain.

        Returns:
            The summary and its folder, on rank 0.
        """
        figures = self._metrics.figures()
        self._store.close()
        trainer.strategy.barrier("all samples are on disk")
        if not trainer.is_global_zero:
            return None
        measured = self.measured
        files = self._store.finish(self._prompts, measured.sampling.n)
        produced_by = {
            "model": measured.model,
            "sampling": asdict(measured.sampling),
            "seed": measured.seed,
            "engine": f"{measured.engine.__module__}.{measured.engine.__qualname__}",
            "verifiers": verifiers,
            "prompts": self._prompts,
        }
        report = summary(produced_by, figures, files, self._store.folder.name)
        write_json(report, self._store.folder / "summary.json")
        return report, self._store.folder
