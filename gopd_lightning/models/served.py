"""A teacher or reference behind a vLLM server, for models that are too large to hold: log-probs of sampled tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gopd_lightning.errors import TrainingError
from gopd_lightning.logprobs import TokenScores
from gopd_lightning.records import TokenIds
from gopd_lightning.servers import GENERATE, Server, Servers

_PARAMETERS = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}


class VLLMTeacher:
    """Scores sampled tokens with the model of a plain `vllm serve MODEL`.

    vLLM gives the log-probs of a prompt's own tokens, always of the model as it is: temperature 1, in the server's
    precision, over all rows of its head, those that pad the vocabulary included (a trained model gives them
    next to nothing). It gives no distributions, so that only the sampled estimator can use it. The server's
    --max-model-len must exceed the longest prompt and response together.

    Args:
        url: The server, such as http://host:8000.
        wait_s: Seconds that it may be out of reach (starting, or lost) before the run stops.
        request_s: Seconds that one row may take; longer counts as a lost server.
    """

    def __init__(self, url: str, wait_s: float = 600.0, request_s: float = 3600.0) -> None:
        self.url = url
        self._servers = Servers([url], _healthy, wait_s, request_s)

    def score(
        self, prompts: Sequence[TokenIds], responses: Sequence[TokenIds], device: torch.device | str = "cpu"
    ) -> TokenScores:
        """Log-probs of all response tokens, flat in row order; see `models.scoring.Scorer`.

        Args:
            prompts: Prompt ids of each row, as this model reads them.
            responses: Response ids of each row.
            device: Where the log-probs are wanted.

        Raises:
            TrainingError: The server is out of reach for too long, or its answer is not about these tokens.
            InputError: The server refuses a row, such as one that is too long for it.
        """
        rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
        found: dict[int, list[float]] = {}

        def keep(number: int, positions: Sequence[Mapping[str, Any] | None]) -> None:
            start = len(prompts[number])
            found[number] = _of_tokens(positions[start:], rows[number][start:], self.url)

        bodies = [{"token_ids": row, "sampling_params": _PARAMETERS} for row in rows]
        self._servers.answers(GENERATE, bodies, _prompt_logprobs, keep)
        flat = [x for number in range(len(rows)) for x in found[number]]
        return TokenScores(logprobs=torch.tensor(flat, dtype=torch.float32, device=device))


def _of_tokens(positions: Sequence[Mapping[str, Any] | None], ids: TokenIds, url: str) -> list[float]:
    """The log-prob of each id, from what the server says of each position."""
    try:
        pairs = zip(positions, ids, strict=True)
        return [float(position[str(i)]["logprob"]) for position, i in pairs]  # type: ignore[index]
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"the vLLM server {url} did not answer with log-probs of the tokens sent") from error


def _prompt_logprobs(server: Server, answer: Mapping[str, Any]) -> list[Mapping[str, Any] | None]:
    found: list[Mapping[str, Any] | None] = answer["prompt_logprobs"] or []
    return found


async def _healthy(server: Server) -> None:
    await server.get("/health")
