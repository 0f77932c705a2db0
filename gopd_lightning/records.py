"""The records that cross rooms: prompts, completions and rollout rows, and their grouping into micro-batches.

Batches are ragged everywhere: token ids with lengths, one record a row. Padding happens at a model's door
(`gopd_lightning.models.scoring`), never here. Engines take and give token ids; text is made once, for
verifiers and people.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from torch import Tensor

TokenIds = Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One prompt, tokenised for the student and for every frozen model that reads it differently.

    Attributes:
        uid: Number of the row, different for all rows of its split: stable, and part of every sampling seed.
        id: What the row is called in its data set.
        domain: What the row is about; chooses the teacher and the verifier.
        dataset: Name of the data set that the row came from; validation figures are kept by it.
        text: The prompt as people read it (the rendered chat template when there is one).
        ids: The student's token ids of the prompt.
        frozen_ids: Token ids under another model's chat template, by encoder name. Absent names read `ids`.
        answer: Ground truth for the verifier, as its file gives it; None where nothing verifies the row.
        response: Token ids of a given response, end-of-sequence included (supervised rows only).
        source: File and row, for error messages.
    """

    uid: int
    id: str = ""
    domain: str
    dataset: str
    text: str
    ids: TokenIds
    frozen_ids: Mapping[str, TokenIds] = field(default_factory=dict)
    answer: str | None = None
    response: TokenIds | None = None
    source: str = ""

    def ids_for(self, encoder: str) -> TokenIds:
        """Token ids of the prompt as the model behind `encoder` reads it."""
        return self.frozen_ids.get(encoder, self.ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What an engine sampled for one prompt.

    Attributes:
        ids: Response token ids, the end-of-sequence token included when the model gave one.
        finished: False when the response was cut at the length limit (it is trained on all the same).
        logprobs: The engine's own log-prob of each sampled id, natural log; None when it gives none.
        version: Version of the weights that sampled it (the optimizer step).
    """

    ids: TokenIds
    finished: bool
    logprobs: Sequence[float] | None = None
    version: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a verifier says of one response.

    Attributes:
        reward: Score in [0, 1]; 1 is right.
        answer: The answer that was found in the response; None when there was none.
        reason: Why it is not right, in a few words for people; "" where it is.
        vote: What equal answers share, whatever their spelling, for maj@k; None where answers cannot be counted.
        crashed: The verifier failed on this response, which then counts as wrong.
    """

    reward: float
    answer: str | None = None
    reason: str = ""
    vote: str | None = None
    crashed: bool = False


@dataclass(kw_only=True, slots=True)
class Row:
    """One prompt with one completion, and what was found out about it.

    Attributes:
        prompt: The prompt.
        completion: The sampled (or, supervised, the given) response.
        sample: Which of the prompt's n samples this is.
        text: The response as text, special tokens left out.
        verdict: What the verifier says, or None when nobody asked.
        advantage: Advantage of the whole response (GRPO); 0 elsewhere.
        scores: Per-token figures (response length,) filled in by the update, on the CPU: `student`, `teacher`,
            `reference` log-probs, `advantage`, `loss`, `weight`. For the rollout log.
    """

    prompt: Prompt
    completion: Completion
    sample: int = 0
    text: str = ""
    verdict: Verdict | None = None
    advantage: float = 0.0
    scores: dict[str, Tensor] = field(default_factory=dict)

    @property
    def reward(self) -> float | None:
        """The verifier's score in [0, 1], or None when nobody asked."""
        return None if self.verdict is None else self.verdict.reward

    @property
    def length(self) -> int:
        """Number of tokens of prompt and response together."""
        return len(self.prompt.ids) + len(self.completion.ids)


class Batch:
    """One step's prompts and, once a rollout has filled them in, its rows.

    A plain class on purpose: Lightning walks into dataclasses, lists and dicts to move tensors, and must leave
    these records alone.
    """

    def __init__(self, prompts: Sequence[Prompt], rows: Sequence[Row] = ()) -> None:
        self.prompts = list(prompts)
        self.rows = list(rows)
        self.info: dict[str, Any] = {}


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, and on nothing else.

    Args:
        *parts: For a sample: (seed, step, prompt uid, sample number).
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def run_seed(seed: int | None) -> int:
    """A given seed, or the one that Lightning's `seed_everything` left in the environment, or 0.

    Args:
        seed: A setting; None follows the run's seed, so that one number changes all that is random.
    """
    return int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The samples of each prompt: rows stand side by side, and a group begins at sample 0.

    Args:
        rows: Rows as an engine's samples come: the n of the first prompt first. A prompt may occur twice.
    """
    found: list[list[Row]] = []
    for row in rows:
        if row.sample == 0 or not found:
            found.append([])
        found[-1].append(row)
    return found


def common_beginning(one: TokenIds, other: TokenIds) -> int:
    """Tokens that two rows begin with alike.

    Of rows in the order of a dictionary, none begins like a row for longer than the one before it.

    Args:
        one: Token ids.
        other: Token ids.
    """
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def micro_batches(
    rows: Sequence[Row], max_tokens: int, group: Callable[[Row], str] = lambda row: row.prompt.domain
) -> list[list[Row]]:
    """Split a step's rows into micro-batches of one group each, every one within a padded-token budget.

    Rows are ordered by group, then length, then identity, so that the result does not depend on the order in
    which they came; a row longer than the budget gets a micro-batch of its own. Because no micro-batch mixes
    groups, a batch of two domains gives exactly the micro-batches of the two alone.

    Args:
        rows: The rows of the step on this rank.
        max_tokens: Padded tokens (rows x longest) that one micro-batch may hold.
        group: What must not be mixed (by default, domains: each has its own teacher).

    Returns:
        The micro-batches; their concatenation is a permutation of `rows`.
    """
    batches: list[list[Row]] = []
    last_group = None
    for row in sorted(rows, key=lambda r: (group(r), r.length, r.prompt.uid, r.sample)):
        fits = bool(batches) and (len(batches[-1]) + 1) * row.length <= max_tokens
        if fits and group(row) == last_group:
            batches[-1].append(row)
        else:
            batches.append([row])
        last_group = group(row)
    return batches
