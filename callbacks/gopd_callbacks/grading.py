"""The verifiers of a run: started and checked before it, asked during it, watched for failures of their own."""

from collections.abc import Collection, Sequence

from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt, Row
from gopd_lightning.rollouts import grade
from gopd_lightning.verifiers import Verifier

LOUD_SHARE = 0.01  # of graded samples; above it, figures are not to be trusted


class Grading:
    """The verifiers by domain.

    Args:
        verifiers: The verifier of each domain; domains without one are not graded.
    """

    def __init__(self, verifiers: dict[str, Verifier]) -> None:
        self.verifiers = verifiers
        self.graded = 0
        self.crashed = 0
        self._next_warning = 1

    def start(self, domains: Collection[str]) -> None:
        """Start the verifiers that will be asked and show what each has to say.

        Args:
            domains: Domains of the run's prompts.

        Raises:
            InputError: A verifier cannot work on this machine.
        """
        for domain, verifier in self.verifiers.items():
            line = verifier.start() if domain in domains else None
            if line:
                rank_zero_only(print)(f"{domain}: {line}", flush=True)

    def check(self, prompts: Sequence[Prompt], must: bool) -> None:
        """Check every ground truth, and that domains which must be verified have a verifier.

        Args:
            prompts: Prompts that will be graded.
            must: Whether a domain without a verifier is an error.

        Raises:
            InputError: A broken ground truth, or a missing verifier.
        """
        for prompt in prompts:
            verifier = self.verifiers.get(prompt.domain)
            if verifier is not None:
                verifier.check(prompt)
            elif must:
                raise InputError(
                    f"{prompt.source}: rewards are needed and the domain {prompt.domain!r} has no verifier: "
                    "add one to `verifiers`"
                )

    def __call__(self, rows: Sequence[Row]) -> None:
        """Grade rows in place, and say so when verifiers fail.

        Args:
            rows: Sampled rows.
        """
        grade(rows, self.verifiers)
        failed = [row for row in rows if row.verdict is not None and row.verdict.crashed]
        self.graded += sum(row.verdict is not None for row in rows)
        self.crashed += len(failed)
        if failed and self.crashed >= self._next_warning:
            self._next_warning = 2 * self.crashed
            rank_zero_warn(self._warning(failed[0]))

    def _warning(self, row: Row) -> str:
        reason = row.verdict.reason if row.verdict else ""
        example = f"{row.prompt.source or row.prompt.dataset}: {reason}"
        count = f"the grader failed on {self.crashed:,} of {self.graded:,} samples, which count as wrong"
        if self.crashed <= LOUD_SHARE * self.graded:
            return f"{count}; first of the latest: {example}"
        return f"MORE THAN 1 % OF THE SAMPLES COULD NOT BE GRADED, do not trust these figures: {count}; {example}"
