"""Are the verifiers right? Every canonical solution must pass its tests, and a spoilt one must fail them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gopd_callbacks.grading import Grading
from gopd_callbacks.panel import Tally
from gopd_callbacks.sample_store import write_whole
from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.records import Batch, Completion, Prompt, Row, run_seed, seed_of
from gopd_lightning.verifiers import Verifier
from gopd_lightning.verifiers.programs.formats import canonical, entry_point, parse_tests
from gopd_lightning.verifiers.programs.mutation import mutants

_FILE = "selftest.jsonl"


@dataclass
class _Finding:
    """What is known of one problem."""

    prompt: Prompt
    canonical: Row
    mutants: list[Row] = field(default_factory=list)

    @property
    def caught(self) -> Row | None:
        """The mutant that failed its tests."""
        return next((row for row in self.mutants if _failed(row)), None)

    @property
    def faults(self) -> list[str]:
        """What is not as it should be."""
        found = []
        if self.canonical.reward != 1.0:
            found.append(f"its canonical solution fails: {_reason(self.canonical)}")
        if self.caught is None:
            found.append(f"none of its {len(self.mutants)} mutants fails")
        return found

    @property
    def name(self) -> str:
        """The problem, for people."""
        return f"{self.prompt.dataset} {self.prompt.id}"

    @property
    def record(self) -> dict[str, Any]:
        """A line of the file."""
        caught = self.caught
        return {
            "set": self.prompt.dataset,
            "id": self.prompt.id,
            "canonical_reward": self.canonical.reward,
            "canonical_reason": _reason(self.canonical),
            "mutants_tried": len(self.mutants),
            "failing_mutant": caught and caught.text,
            "failing_reason": caught and _reason(caught),
            "left_out": dict(parse_tests(self.prompt.answer or "").left_out),
        }


class SelfTest(Callback):
    """Grades the canonical solution of every test prompt, and mutants of it until one fails.

    Writes `selftest.jsonl` into the run folder, prints one line a data set and one for every exception, and ends the
    command with exit code 1 where a canonical solution fails or all mutants pass.

    Args:
        verifiers: The verifier of each domain; each domain of the data needs one.
        mutants: How many mutants to try at most.
        seed: Of the mutants; null takes `seed_everything`.

    Example::

        model: {class_path: gopd_lightning.Canonical}
        trainer:
          callbacks:
            - class_path: gopd_callbacks.SelfTest
              init_args:
                verifiers: {code: {class_path: gopd_lightning.verifiers.ProgramVerifier}}
    """

    def __init__(self, verifiers: dict[str, Verifier], mutants: int = 8, seed: int | None = None) -> None:
        if mutants < 1:
            raise InputError(f"SelfTest.mutants is {mutants}; it must be at least 1")
        self.grading = Grading(verifiers)
        self.mutants = mutants
        self.seed = run_seed(seed)
        self.tally = Tally("problems", 0, unit="problem")
        self._findings: list[_Finding] = []
        self._finished: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is something to test with.

        Args:
            trainer: The trainer; its data module has been set up.
            pl_module: The module.
            stage: test.

        Raises:
            InputError: Several processes, a domain without a verifier, or a row without a canonical solution.
        """
        if trainer.world_size > 1:
            raise InputError("trainer.devices: a self-test runs in one process; set devices: 1")
        prompts: list[Prompt] = trainer.datamodule.prompts["test"]  # type: ignore[attr-defined]
        self.grading.check(prompts, must=True)
        for prompt in prompts:
            if canonical(prompt.answer or "") is None:
                raise InputError(f"{prompt.source}: no canonical_solution; a self-test needs one in every row")
        self.grading.start({prompt.domain for prompt in prompts})

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._findings = []
        self.tally.restart(total=len(trainer.datamodule.prompts["test"]))  # type: ignore[attr-defined]

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Grade canonical solutions, then one mutant after the other where none has failed yet."""
        findings = [_Finding(prompt, _row(prompt, 0, canonical(prompt.answer or "") or "")) for prompt in batch.prompts]
        self.grading([finding.canonical for finding in findings])
        self.tally.count([finding.canonical.reward or 0.0 for finding in findings])
        waiting = [(finding, self._spoilt(finding.prompt)) for finding in findings]
        for sample in range(1, self.mutants + 1):
            tried = [(finding, next(source, None)) for finding, source in waiting]
            rows = [(finding, _row(finding.prompt, sample, text)) for finding, text in tried if text is not None]
            self.grading([row for _, row in rows])
            for finding, row in rows:
                finding.mutants.append(row)
            waiting = [(finding, source) for finding, source in waiting if finding.caught is None]
            self.tally.done = len(self._findings) + len(findings) - len(waiting)
        self.tally.done = len(self._findings) + len(findings)
        self._findings += findings
        batch.rows = [row for finding in findings for row in (finding.canonical, *finding.mutants)]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was found."""
        self._finished = Path(trainer.default_root_dir) / _FILE
        self._finished.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(finding.record, ensure_ascii=False) + "\n" for finding in self._findings]
        write_whole("".join(lines), self._finished)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say what was found, now that no progress display is in its way.

        Raises:
            TrainingError: Something is not as it should be.
        """
        if self._finished is None:
            return
        for line in _report(self._findings):
            print(line)
        print(f"every problem: {self._finished}", flush=True)
        self._finished = None
        wrong = sum(bool(finding.faults) for finding in self._findings)
        if wrong:
            raise TrainingError(f"the self-test failed for {wrong} of {len(self._findings)} problems; see above")

    def _spoilt(self, prompt: Prompt) -> Iterator[str]:
        answer = prompt.answer or ""
        seed = seed_of(self.seed, "mutants", prompt.uid)
        yield from mutants(canonical(answer) or "", entry_point(answer) or "", self.mutants, seed)


def _row(prompt: Prompt, sample: int, program: str) -> Row:
    text = f"```python\n{program}\n```"
    return Row(prompt=prompt, completion=Completion(ids=[], finished=True), sample=sample, text=text)


def _failed(row: Row) -> bool:
    return row.verdict is not None and row.verdict.reward < 1.0 and not row.verdict.crashed


def _reason(row: Row) -> str:
    return row.verdict.reason if row.verdict else ""


def _report(findings: Sequence[_Finding]) -> Iterator[str]:
    """A line for every problem that is an exception, then one a data set."""
    for finding in findings:
        left_out = finding.record["left_out"]
        yield from (f"{finding.name}: {fault}" for fault in finding.faults)
        yield from (f"{finding.name}: {test} is left out: {why}" for test, why in left_out.items())
    for name in dict.fromkeys(finding.prompt.dataset for finding in findings):
        own = [finding for finding in findings if finding.prompt.dataset == name]
        passed = sum(finding.canonical.reward == 1.0 for finding in own)
        caught = sum(finding.caught is not None for finding in own)
        yield f"{name}: {passed}/{len(own)} canonical solutions pass, {caught}/{len(own)} problems fail a mutant"
