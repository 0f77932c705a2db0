"""Scoring token rows with a local causal language model: pack or pad at its door, keep what predicts responses."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gopd_lightning.attention import UnknownAttentionError
from gopd_lightning.lines import Line, lots_of
from gopd_lightning.logprobs import Head, States, TokenScores
from gopd_lightning.models.packing import packed_trunk, packs
from gopd_lightning.records import TokenIds

LINE_TOKENS = 2048  # tokens through a CPU at a time: products at their full rate, activations in its cache
PADDED_TOKENS = {"cpu": 1024, "cuda": 16384}  # short lots hold rows of like length: little padding


class Scorer(Protocol):
    """Whatever scores sampled tokens: the student, a frozen local model, an adapter, a served teacher."""

    def score(self, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> TokenScores:
        """Scores of all response tokens, flat in row order.

        Args:
            prompts: Prompt ids of each row, as this model reads them.
            responses: Response ids of each row.
        """
        ...


class _Trunk(NamedTuple):
    """Hidden states (N, H) in row order, and how many real tokens and positions in all the trunk took for them."""

    hidden: Tensor
    real: int
    padded: int


class LocalScorer:
    """Scores with a Hugging Face causal language model in this process.

    Rows go through the trunk end to end, a beginning that several rows share once (`lines.Line`); rows of a model
    that cannot take them so, of one on an accelerator, and of a sharded one are padded. Only the positions that predict
    response tokens are kept. Results are the same to rounding.

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
        found = self._packed(prompts, responses) if self._packs() else self._padded(prompts, responses)
        states = States(found.hidden, head_of(self.model, self.vocabulary, self.temperature))
        return TokenScores(states, positions=(found.real, found.padded))

    def _packs(self) -> bool:
        on_cpu = next(self.model.parameters()).device.type == "cpu"  # elsewhere, a kernel a row waits for its launch
        return on_cpu and not hasattr(self.model, "trunk_forward") and packs(unwrapped(self.model))

    def _packed(self, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> _Trunk:
        rows = [[*prompt, *response[:-1]] for prompt, response in zip(prompts, responses, strict=True)]
        lots = lots_of(rows, LINE_TOKENS)
        lines = [Line([rows[i] for i in lot]) for lot in lots]
        try:
            found = [
                packed_trunk(unwrapped(self.model), line)[_predicting(line, [prompts[i] for i in lot])]
                for line, lot in zip(lines, lots, strict=True)
            ]
        except UnknownAttentionError:
            return self._padded(prompts, responses)
        tokens = sum(map(len, lines))
        return _Trunk(_in_row_order(found, lots, responses), tokens, tokens)

    def _padded(self, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> _Trunk:
        device = next(self.model.parameters()).device
        lots = [list(range(len(prompts)))]
        if not torch.is_grad_enabled():  # with a gradient, the caller sees to lots and to ranks in step
            lots = by_length(prompts, responses, PADDED_TOKENS.get(device.type, PADDED_TOKENS["cuda"]))
        found, padded = [], self._spare_forwards(len(lots), device)
        for lot in lots:
            ids, positions = _pad_right([prompts[i] for i in lot], [responses[i] for i in lot])
            found.append(trunk(self.model, ids.to(device)).flatten(0, 1)[positions.to(device)])
            padded += ids.numel()
        real = sum(len(prompt) + len(response) - 1 for prompt, response in zip(prompts, responses, strict=True))
        return _Trunk(_in_row_order(found, lots, responses), real, padded)

    def _spare_forwards(self, own: int, device: torch.device) -> int:
        """Forwards of one token each, up to the number that the busiest rank runs: a sharded model needs all ranks."""
        most = getattr(self.model, "most_forwards", None)
        spare = 0 if most is None or torch.is_grad_enabled() else most(own) - own
        for _ in range(spare):
            trunk(self.model, torch.zeros(1, 1, dtype=torch.long, device=device))
        return spare


def by_length(prompts: Sequence[TokenIds], responses: Sequence[TokenIds], max_tokens: int) -> list[list[int]]:
    """Row numbers in lots of like length, each within `max_tokens` when padded (rows times the longest).

    Args:
        prompts: Prompt ids of each row.
        responses: Response ids of each row.
        max_tokens: Padded tokens of a lot; a longer row gets a lot of its own.
    """
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    lots: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if lots and (len(lots[-1]) + 1) * lengths[i] <= max_tokens:
            lots[-1].append(i)
        else:
            lots.append([i])
    return lots


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
    weight, bias = _whole(layer.weight), None if bias is None else _whole(bias)
    return Head(
        weight=weight[:vocabulary] if cut else weight,
        bias=bias[:vocabulary] if cut and bias is not None else bias,
        softcap=softcap,
        temperature=temperature,
    )


def _whole(weight: Tensor) -> Tensor:
    """A weight gathered where it lies in shards: of a frozen model; the student's head is whole in the update."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT wrapper (adapters stay in force), or the model itself."""
    get = getattr(model, "get_base_model", None)
    return get() if get is not None else model


def _predicting(line: Line, prompts: Sequence[TokenIds]) -> list[int]:
    """Positions of a line that predict response tokens, row by row."""
    rows = zip(line.positions, prompts, strict=True)
    return [position for positions, prompt in rows for position in positions[len(prompt) - 1 :]]


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


def _in_row_order(found: Sequence[Tensor], lots: Sequence[Sequence[int]], responses: Sequence[TokenIds]) -> Tensor:
    """Hidden states (N, H) in row order, from those of each lot in the lot's order."""
    pieces: dict[int, Tensor] = {}
    for hidden, lot in zip(found, lots, strict=True):
        pieces.update(zip(lot, torch.split(hidden, [len(responses[i]) for i in lot]), strict=True))
    return torch.cat([pieces[i] for i in range(len(responses))])
