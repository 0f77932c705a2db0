"""The DataModule: reads the splits that a stage needs, tokenises them, and hands out loaders."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from gopd_lightning.data.chat import PromptEncoder
from gopd_lightning.data.loader import EvalLoader, PromptLoader
from gopd_lightning.data.rows import RawRow
from gopd_lightning.data.sources import SourceSpec, read_rows
from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt, run_seed, seed_of

STUDENT = "student"
_SPLITS = {"fit": ("train", "val", "test"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class PromptData(LightningDataModule):
    """Prompts for the on-policy step, for supervised fine-tuning and for evaluation.

    The module it serves says how prompts are read: `encoders` maps "student", and every frozen model that
    reads prompts differently, to a `PromptEncoder`; `domains` is the set of domains it can handle, or None
    for any. Both must be there before Lightning calls `setup`, that is, before weights load.

    Attributes:
        prompts: The prompts of each split that has been set up.
        dropped: Prompts left out because they were too long, by data set name.

    Args:
        train: Sources of training prompts.
        val: Sources of the validation within and after training.
        test: Sources of the final evaluation; a fit reads them too, for its final table.
        predict: Sources of prompts to complete.
        prompts_per_step: Prompts of one optimizer step, over all ranks.
        eval_batch_size: Prompts of one evaluation batch, over all ranks.
        max_prompt_tokens: Longer prompts are dropped and counted, whichever model reads them as longer.
        sets_folder: Folder with files of the evaluation sets that sources name by `set`; null takes them from
            installed packages and the Hugging Face hub.
        seed: Seed of the order of the training prompts; null takes `seed_everything`.
    """

    def __init__(
        self,
        train: Sequence[SourceSpec] = (),
        val: Sequence[SourceSpec] = (),
        test: Sequence[SourceSpec] = (),
        predict: Sequence[SourceSpec] = (),
        prompts_per_step: int = 64,
        eval_batch_size: int = 256,
        max_prompt_tokens: int = 2048,
        sets_folder: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.specs = {"train": list(train), "val": list(val), "test": list(test), "predict": list(predict)}
        self.prompts_per_step = prompts_per_step
        self.eval_batch_size = eval_batch_size
        self.max_prompt_tokens = max_prompt_tokens
        self.sets_folder = sets_folder
        self.seed = run_seed(seed)
        self.prompts: dict[str, list[Prompt]] = {}
        self.dropped: dict[str, int] = {}
        self._sources: list[tuple[list[Prompt], float]] = []

    def setup(self, stage: str) -> None:
        """Read and tokenise what the stage needs.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            InputError: A setting, a file or a row cannot work.
        """
        if self.max_prompt_tokens < 1:
            key = f"data.init_args.max_prompt_tokens = {self.max_prompt_tokens}"
            raise InputError(f"{key} leaves no room for a prompt; raise it")
        splits = _SPLITS[stage]
        if not self.specs[splits[0]]:
            raise InputError(f"data.init_args.{splits[0]}: no source given; name at least one")
        self.dropped = {}
        for split in splits:
            self._read(split)
        for split in splits:  # Lightning asks for loaders once weights are in: too late for bad settings
            if split != "train":
                self._eval_loader(split)
        if stage == "fit":
            self.train_dataloader()

    def train_dataloader(self) -> PromptLoader:
        """The stream of training prompts."""
        return PromptLoader(
            self._sources,
            self.prompts_per_step,
            self.seed,
            **self._ranks(),
            limit=self._trainer().limit_train_batches,
        )

    def val_dataloader(self) -> EvalLoader:
        """The validation prompts; none when fitting without `val`, and Lightning then skips validation."""
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        """The test prompts."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> EvalLoader:
        """The prompts to complete."""
        return self._eval_loader("predict")

    def _eval_loader(self, split: str) -> EvalLoader:
        return EvalLoader(self.prompts[split], self.eval_batch_size, **self._ranks())

    def _ranks(self) -> dict[str, int]:
        trainer = self._trainer()
        return {"rank": trainer.global_rank, "world_size": trainer.world_size}

    def _trainer(self) -> Any:
        if self.trainer is None:
            raise RuntimeError("PromptData serves a Trainer: pass it as `datamodule=`")
        return self.trainer

    def _read(self, split: str) -> None:
        given = enumerate(self.specs[split])
        specs = [spec.located(self.sets_folder, f"data.init_args.{split}[{i}]") for i, spec in given]
        if split != "train":
            _check_names(split, specs)
        rows = [list(read_rows(spec)) for spec in specs]
        module = self._trainer().lightning_module
        _check_domains(rows, module.domains)
        supervised = all(row.response is not None for source in rows for row in source)
        prompts: list[list[Prompt]] = []
        dropped: Counter[str] = Counter()
        read: Counter[str] = Counter()
        for spec, source in zip(specs, rows, strict=True):
            # A row is numbered among all of its split; an evaluated one within its own data set, so that its samples'
            # seeds do not depend on what else is evaluated.
            uid = read.total() if split in ("train", "predict") else seed_of(spec.dataset) % 2**40 + read[spec.dataset]
            built = build_prompts(source, module.encoders, spec.dataset, uid, supervised)
            prompts.append(self._short_enough(built, spec))
            dropped[spec.dataset] += len(built) - len(prompts[-1])
            read[spec.dataset] += len(source)
        self.prompts[split] = [prompt for source in prompts for prompt in source]
        self._report(split, +dropped)
        if split == "train":
            self._sources = [(source, spec.weight) for source, spec in zip(prompts, specs, strict=True)]

    def _short_enough(self, prompts: list[Prompt], spec: SourceSpec) -> list[Prompt]:
        limit = self.max_prompt_tokens
        kept = [prompt for prompt in prompts if longest(prompt) <= limit]
        if not kept:
            key = f"data.init_args.max_prompt_tokens = {limit}"
            raise InputError(f"{spec.path}: all {len(prompts)} prompts are longer than {key}; raise it")
        return kept

    def _report(self, split: str, dropped: Counter[str]) -> None:
        self.dropped = dict(Counter(self.dropped) + dropped)
        if dropped:
            names = ", ".join(f"{name} {count:,}" for name, count in sorted(dropped.items()))
            rank_zero_info(f"{split}: dropped prompts longer than {self.max_prompt_tokens} tokens: {names}")


def build_prompts(
    rows: Sequence[RawRow],
    encoders: Mapping[str, PromptEncoder],
    dataset: str,
    first_uid: int,
    supervised: bool,
) -> list[Prompt]:
    """Tokenise rows for the student and for every other model.

    Args:
        rows: Rows of one data set.
        encoders: How each model reads prompts; "student" must be there.
        dataset: Name of the data set.
        first_uid: Number of the first row in its split.
        supervised: Whether to tokenise the given responses too.

    Returns:
        One prompt a row, in order.
    """
    texts, sources = [row.prompt for row in rows], [row.source for row in rows]
    student = encoders[STUDENT]
    own = student.encode_many(texts, sources)
    others = {name: encoder.encode_many(texts, sources) for name, encoder in encoders.items() if encoder is not student}
    responses = student.encode_responses([row.response or "" for row in rows]) if supervised else None
    return [
        Prompt(
            uid=first_uid + i,
            id=row.id,
            domain=row.domain,
            dataset=dataset,
            text=own[i][1],
            ids=own[i][0],
            frozen_ids={name: read[i][0] for name, read in others.items() if read[i][0] != own[i][0]},
            answer=row.answer,
            response=responses[i] if responses else None,
            source=row.source,
        )
        for i, row in enumerate(rows)
    ]


def longest(prompt: Prompt) -> int:
    """Tokens of the prompt for the model that reads it as the longest."""
    return max(len(ids) for ids in (prompt.ids, *prompt.frozen_ids.values()))


def _check_domains(rows: Sequence[Sequence[RawRow]], known: set[str] | None) -> None:
    if known is None:
        return
    stranger = next((row for source in rows for row in source if row.domain not in known), None)
    if stranger is not None:
        names = ", ".join(sorted(known))
        raise InputError(f"{stranger.source}: unknown domain {stranger.domain!r}; the model knows {names}")


def _check_names(split: str, specs: Sequence[SourceSpec]) -> None:
    """Refuse two files that would be reported as one data set by accident; a name given twice is meant."""
    by_name: dict[str, SourceSpec] = {}
    for spec in specs:
        other = by_name.setdefault(spec.dataset, spec)
        if other is not spec and not (spec.name and other.name):
            pair = f"{other.path} and {spec.path} are both called {spec.dataset!r}"
            raise InputError(f"data.init_args.{split}: {pair}; give each a `name`")
