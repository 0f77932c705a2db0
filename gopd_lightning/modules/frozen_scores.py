"""What the frozen models say of a whole step: each scores all its rows, before the first micro-batch.

So a model is loaded, and a prompt read, once a step, and rows are laid out for the frozen models as suits them,
whatever the micro-batches of the student; those of a domain by themselves, so that a figure is the same to the last bit
whatever other domains the step holds. What is kept are log-probs, or hidden states (N x H, some 60 times
smaller than logits) where the objective looks at whole distributions.
"""

from collections.abc import Sequence

import torch

from gopd_lightning.cost import Scored
from gopd_lightning.logprobs import States, TokenScores
from gopd_lightning.models.frozen import FrozenBank, check_served
from gopd_lightning.modules.routing import Routing
from gopd_lightning.objectives import FrozenScores
from gopd_lightning.records import Row


class FrozenStep:
    """Scores of one step's rows on this rank, by model and row.

    Args:
        bank: The frozen models.
        routing: Which of them speak for which domain.
        rows: All rows of the step.
        hidden: Keep hidden states; otherwise only the log-probs of the sampled tokens.

    Attributes:
        scored: What each call ran on this machine, for the cost of the step.

    Raises:
        InputError: Hidden states are asked of a model on a server.
    """

    def __init__(self, bank: FrozenBank, routing: Routing, rows: Sequence[Row], hidden: bool) -> None:
        check_served(routing.specs, 1.0, hidden)
        self.routing = routing
        self.scored: list[Scored] = []
        self._kept: dict[str, dict[int, TokenScores]] = {}
        for name in routing.specs:
            own = [row for row in rows if name in routing.routes[row.prompt.domain].models]
            if own:
                together = [own] if bank.in_step(name) else _by_domain(own)  # ranks in step score equally often
                self._kept[name] = {}
                for part in together:
                    self._kept[name] |= self._score(bank, name, part, hidden)
            elif bank.in_step(name):
                bank.score(name, [[0]], [[0]])  # the other ranks wait for this one's shards

    def of(self, rows: Sequence[Row]) -> FrozenScores:
        """The scores of a micro-batch, whose rows are of one domain.

        Args:
            rows: Some of the step's rows, in any order.
        """
        route = self.routing.routes[rows[0].prompt.domain]
        return FrozenScores(
            teacher=_joined([self._kept[route.teacher][id(row)] for row in rows]),
            reference=_joined([self._kept[route.reference][id(row)] for row in rows]) if route.reference else None,
            reward_scale=route.reward_scale,
        )

    def _score(self, bank: FrozenBank, name: str, rows: Sequence[Row], hidden: bool) -> dict[int, TokenScores]:
        """Scores of rows of one model, row by row."""
        responses = [row.completion.ids for row in rows]
        scores = bank.score(name, [row.prompt.ids_for(name) for row in rows], responses)
        if self.routing.specs[name].url is None:
            self.scored.append(Scored(name, *scores.positions, head=not hidden))
        lengths = [len(response) for response in responses]
        if hidden:
            states = scores.local_states()
            parts = [TokenScores(States(part, states.head)) for part in torch.split(states.hidden, lengths)]
        else:
            device = None if scores.states is None else scores.states.hidden.device
            ids = torch.tensor([i for response in responses for i in response], device=device)
            parts = [TokenScores(logprobs=part) for part in torch.split(scores.logprobs_of(ids), lengths)]
        return {id(row): part for row, part in zip(rows, parts, strict=True)}


def _by_domain(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each domain."""
    return [[row for row in rows if row.prompt.domain == domain] for domain in sorted({r.prompt.domain for r in rows})]


def _joined(parts: Sequence[TokenScores]) -> TokenScores:
    """Scores of rows, one after the other."""
    if parts[0].states is None:
        return TokenScores(logprobs=torch.cat([part.logprobs for part in parts if part.logprobs is not None]))
    states = [part.local_states() for part in parts]
    return TokenScores(States(torch.cat([each.hidden for each in states]), states[0].head))
