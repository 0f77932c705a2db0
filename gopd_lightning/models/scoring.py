"""Scoring token rows with a local causal language model: pad at its door, run the trunk, keep response rows."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from gopd_lightning.logprobs import Head, States, TokenScores
from gopd_lightning.records import TokenIds


class Scorer(Protocol):
    """Whatever scores sampled tokens: the student, a frozen local model, an adapter, a served teacher."""

    def score(self, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> TokenScores:
        """Scores of all response tokens, flat in row order.

        Args:
            prompts: Prompt ids of each row, as this model reads them.
            responses: Response ids of each row.
        """
        ...


class LocalScorer:
    """Scores with a Hugging Face causal language model in this process.

    Args:
        model: The model; gradients flow when they are enabled.
        vocabulary: Number of real token ids. Heads padded beyond it are cut, so that padded vocabularies of
            different sizes are equal.
        temperature: Divides the logits.
    """

    def __init__(self, model: nn.Module, vocabulary: int, temperature: float = 1.0) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.temperature = temperature

    def score(self, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> TokenScores:
        """Hidden states at the positions that predict response tokens, and the head."""
        device = next(self.model.parameters()).device
        ids, positions = _pad_right(prompts, responses)
        hidden = trunk(self.model, ids.to(device)).flatten(0, 1)[positions.to(device)]
        return TokenScores(States(hidden, head_of(self.model, self.vocabulary, self.temperature)))


def trunk(model: nn.Module, ids: Tensor) -> Tensor:
    """Last hidden states (B, L, H) of right-padded ids (B, L), head left out.

    No attention mask is given: under causal attention a real token never sees the padding to its right, so
    hidden states do not depend on how a row was padded, and sdpa takes its fast path.
    """
    run = getattr(model, "trunk_forward", None)  # a sharded model's own entry, see gopd_lightning.strategies
    if run is not None:
        return run(ids)  # type: ignore[no-any-return]
    return plain_trunk(model, ids)


def plain_trunk(model: nn.Module, ids: Tensor) -> Tensor:
    """`trunk` of a model that is not sharded."""
    output = unwrapped(model).base_model(input_ids=ids, use_cache=False)  # type: ignore[operator]
    return output.last_hidden_state  # type: ignore[no-any-return]


def head_of(model: nn.Module, vocabulary: int, temperature: float = 1.0) -> Head:
    """The head of a causal language model, cut to the real vocabulary."""
    inner = unwrapped(model)
    layer = inner.get_output_embeddings()  # type: ignore[operator]
    bias = getattr(layer, "bias", None)
    softcap = getattr(inner.config, "final_logit_softcapping", None)
    cut = layer.weight.shape[0] > vocabulary
    return Head(
        weight=layer.weight[:vocabulary] if cut else layer.weight,
        bias=bias[:vocabulary] if cut and bias is not None else bias,
        softcap=softcap,
        temperature=temperature,
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT wrapper (adapters stay in force), or the model itself."""
    get = getattr(model, "get_base_model", None)
    return get() if get is not None else model


def _pad_right(prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> tuple[Tensor, Tensor]:
    """Right-padded ids (B, L) and flat indices (N,) of the positions that predict each response token.

    The last response token predicts nothing that is scored, so it is left out of the input.
    """
    rows = [[*prompt, *response][:-1] for prompt, response in zip(prompts, responses, strict=True)]
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    spans = []
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        spans.append(torch.arange(i * width + len(prompt) - 1, i * width + len(row)))
    return ids, torch.cat(spans)
