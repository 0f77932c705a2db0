"""The rollout of the next step, sampled while the present one trains."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lightning.pytorch import Trainer
from torch import distributed

from gopd_lightning.errors import TrainingError
from gopd_lightning.records import Completion, Prompt, Row

Sample = Callable[[Sequence[Prompt], int], list[Row]]


class Ahead:
    """Holds one rollout at most, that of the next step, finished or still being sampled in a thread.

    The prompts of a step depend on its number alone, so the next ones are known. What has been sampled ahead belongs
    to the state of the run: a checkpoint waits for it and keeps its completions, so that a resumed run trains on the
    very tokens that the weights before gave.

    Args:
        samples: Completions a prompt.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self._threads: ThreadPoolExecutor | None = None
        self._sampling: Future[list[Row]] | None = None
        self._kept: list[list[Any]] = []

    def start(self, trainer: Trainer, sample: Sample) -> None:
        """Begin the rollout of the next step, unless this one is the last.

        Args:
            trainer: The trainer, in its present step.
            sample: Gives the rows of prompts of a step, from weights that training does not touch.
        """
        step = trainer.global_step + 1
        if 0 <= trainer.max_steps <= step:
            return
        self._threads = self._threads or ThreadPoolExecutor(1, thread_name_prefix="gopd-rollout")
        loader: Any = trainer.train_dataloader
        self._sampling = self._threads.submit(sample, loader.prompts_at(loader.step)[loader.share], step)

    def take(self, trainer: Trainer, prompts: Sequence[Prompt], text: Callable[[Any], str]) -> list[Row] | None:
        """The rollout of this step, waited for; None where none was begun, as in the first.

        Args:
            trainer: The trainer, in its present step.
            prompts: This rank's prompts.
            text: Decodes token ids.

        Raises:
            TrainingError: A checkpoint's rollout is for other prompts.
        """
        if self._kept:
            return self._restored(trainer, prompts, text)
        if self._sampling is None:
            return None
        rows, self._sampling = self._sampling.result(), None
        return rows

    def wait(self) -> None:
        """Let the rollout finish: its engine is about to get other weights."""
        if self._sampling is not None:
            self._sampling.result()

    def state(self) -> list[list[Any]]:
        """The completions of all ranks in the order of the step's prompts, as plain values; a collective."""
        if self._sampling is None:
            return self._kept
        rows = self._sampling.result()
        own = [[row.prompt.uid, *_plain(row.completion)] for row in rows]
        if not (distributed.is_available() and distributed.is_initialized()):
            return own
        parts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, own)
        return [one for part in parts for one in part]

    def restore(self, state: list[list[Any]]) -> None:
        """Keep what a checkpoint holds for the step that comes next.

        Args:
            state: What `state` gave, of any number of ranks.
        """
        self._kept = state

    def close(self) -> None:
        """End the thread; what it has begun is waited for and forgotten."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)
        self._threads = self._sampling = None

    def _restored(self, trainer: Trainer, prompts: Sequence[Prompt], text: Callable[[Any], str]) -> list[Row]:
        share = trainer.train_dataloader.share  # type: ignore[union-attr]
        kept, self._kept = self._kept[share.start * self.samples : share.stop * self.samples], []
        wanted = [prompt for prompt in prompts for _ in range(self.samples)]
        if [uid for uid, *_ in kept] != [prompt.uid for prompt in wanted]:
            raise TrainingError(
                "the checkpoint holds a rollout for this step that is of other prompts: go on with the data, "
                "prompts_per_step, seed and sampling.n that it was made with"
            )
        rows = []
        for i, (prompt, (_, ids, finished, logprobs, version)) in enumerate(zip(wanted, kept, strict=True)):
            found = Completion(ids=ids, finished=finished, logprobs=logprobs, version=version)
            rows.append(Row(prompt=prompt, completion=found, sample=i % self.samples, text=text(ids)))
        return rows


def _plain(found: Completion) -> tuple[list[int], bool, list[float] | None, int]:
    logprobs = None if found.logprobs is None else list(found.logprobs)
    return list(found.ids), found.finished, logprobs, found.version
