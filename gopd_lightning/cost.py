"""What a step costs at least: FLOPs and bytes from a model's weights and the rows' lengths, and the machine's limit.

Counted are multiply and add as two FLOPs of matrix products and attention under a causal mask; norms, activations and
softmax are left out. Nothing that a step may do twice is counted twice: no padding, no recompute in the backward
pass, and what prompts begin with alike is read once, also with gradient.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from gopd_lightning.models.scoring import unwrapped
from gopd_lightning.records import Row, common_beginning, groups

ADAM_BYTES = 28  # a float32 parameter: itself and two moments read and written, its gradient read
_UNKNOWN = ("num_experts", "num_local_experts", "n_routed_experts", "kv_lora_rank")  # experts, latent attention


@dataclass(frozen=True, slots=True)
class Scored:
    """What one scoring call ran on this rank.

    Attributes:
        model: `student`, or the name of the frozen model in the routing.
        real: Token positions of real tokens that went through the trunk; what rows share counts once.
        padded: Token positions that went through the trunk at all.
        head: A frozen model's head ran in scoring too; otherwise the objective runs it, in the update.
    """

    model: str
    real: int
    padded: int
    head: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """A causal language model as far as its cost goes.

    Attributes:
        body: Weights of the trunk's matrices; embeddings are looked up, not multiplied, and do not count.
        body_trained: Those of them that get gradients.
        head: Weights of the head over the real vocabulary, tied to the embedding or not.
        head_trained: The same where they get gradients, else 0.
        attention: FLOPs of all layers for one query and one key.
        cache: Elements of the key-value cache a token.
    """

    body: int
    body_trained: int
    head: int
    head_trained: int
    attention: int
    cache: int


class Lengths(NamedTuple):
    """Token counts of one prompt and of the responses that were sampled for it.

    `shared` are those of the prompt that another one of the step begins with, and that need not be read again.
    """

    prompt: int
    responses: tuple[int, ...]
    shared: int = 0


class Rates(NamedTuple):
    """What the machine can do: FLOPs a second of matrix products in one dtype, and bytes a second."""

    flops: float
    bytes: float


class Work(NamedTuple):
    """Work of a phase as the seconds that it needs at least.

    `matmul_s` is its FLOPs at the machine's rate; `limit_s` is longer where bytes are what takes the time.
    """

    matmul_s: float
    limit_s: float

    def plus(self, other: "Work") -> "Work":
        """Both, one after the other."""
        return Work(self.matmul_s + other.matmul_s, self.limit_s + other.limit_s)


class Member(NamedTuple):
    """A model in a step: its shape, the dtype that it computes in, and the machine's rates in that."""

    shape: Shape
    dtype: torch.dtype
    rates: Rates


@dataclass(frozen=True, slots=True)
class Models:
    """All models of a run.

    Attributes:
        student: The student as it is trained.
        engine: The student as it is sampled from.
        frozen: The frozen models by name.
        optimizer_bytes: Bytes that the optimizer moves in a step on this rank.
    """

    student: Member
    engine: Member
    frozen: Mapping[str, Member]
    optimizer_bytes: int


def shape_of(model: nn.Module, vocabulary: int) -> Shape | None:
    """The shape of a loaded model, with the adapter that is in force.

    Args:
        model: A transformers model, sharded or not, or a PEFT model around one.
        vocabulary: Number of real token ids.

    Returns:
        Its shape; None where the cost is not in the shapes of the weights and full attention alone (experts,
        state-space and sliding-window layers, latent attention).
    """
    inner: Any = unwrapped(model)
    config = inner.config.get_text_config()
    matrices = _matrices(inner.base_model)
    if matrices is None or not _plain_attention(config):
        return None
    head = inner.get_output_embeddings().weight
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return Shape(
        body=sum(p.numel() for p in matrices),
        body_trained=sum(p.numel() for p in matrices if p.requires_grad),
        head=min(vocabulary, head.shape[0]) * head.shape[1],
        head_trained=min(vocabulary, head.shape[0]) * head.shape[1] * head.requires_grad,
        attention=4 * config.num_hidden_layers * heads * size,
        cache=2 * config.num_hidden_layers * kv_heads * size,
    )


def lengths_of(rows: Sequence[Row], reader: str = "student") -> list[Lengths]:
    """Prompts and responses of rows, samples of one prompt side by side, prompts in the order of a dictionary.

    Args:
        rows: The rows.
        reader: The model that reads the prompts.
    """
    found, before = list[Lengths](), list[int]()
    for prompt, group in sorted(
        ((list(g[0].prompt.ids_for(reader)), g) for g in groups(rows)), key=lambda pair: pair[0]
    ):
        responses = tuple(len(row.completion.ids) for row in group)
        found.append(Lengths(len(prompt), responses, common_beginning(before, prompt)))
        before = prompt
    return found


def scoring_flops(shape: Shape, rows: Sequence[Lengths]) -> float:
    """Trunk of a forward pass, each prompt read once; the last token predicts nothing and is not read."""
    tokens, pairs = _read(rows)
    return 2 * shape.body * tokens + shape.attention * pairs


def head_flops(shape: Shape, rows: Sequence[Lengths]) -> float:
    """Head of a forward pass at the positions that predict response tokens."""
    return 2 * shape.head * sum(sum(row.responses) for row in rows)


def training_flops(shape: Shape, rows: Sequence[Lengths]) -> float:
    """Forward and backward pass: 6 FLOPs a trained weight and token, 4 a frozen one that gradients pass through."""
    tokens, pairs = _read(rows)
    body = (4 * shape.body + 2 * shape.body_trained) * tokens
    head = (4 * shape.head + 2 * shape.head_trained) * sum(sum(row.responses) for row in rows)
    return body + head + 3 * shape.attention * pairs


def generation(member: Member, rows: Sequence[Lengths]) -> Work:
    """Prompts read once, then every sequence decoded side by side until it ends.

    A pass over the active sequences takes the longer of its FLOPs and of reading all weights and their caches.

    Args:
        member: The student as the engine runs it.
        rows: What was sampled.
    """
    shape, rates, width = member.shape, member.rates, member.dtype.itemsize
    tokens, pairs = _read([row._replace(responses=()) for row in rows])
    read = 2 * shape.body * tokens + 2 * shape.head * len(rows) + shape.attention * pairs
    weights = width * (shape.body + shape.head)
    matmul, limit = _work(read, weights, rates)
    for active, keys in _decoded(rows):
        flops = 2 * (shape.body + shape.head) * active + shape.attention * keys
        seconds = flops / rates.flops
        matmul += seconds
        limit += max(seconds, (weights + width * shape.cache * keys) / rates.bytes)
    return Work(matmul, limit)


def step_work(
    models: Models, rows: Mapping[str, Sequence[Lengths]], sampled: bool, heads_in_scoring: bool
) -> dict[str, Work]:
    """The least work of a step by phase: `rollout`, `score` and `train`.

    Args:
        models: The models of the run.
        rows: What each of `student` and the frozen models reads on this rank.
        sampled: The rows were sampled in this step, not given.
        heads_in_scoring: The frozen models' heads run in scoring; otherwise they are part of training.
    """
    own, nothing = rows["student"], Work(0.0, 0.0)
    score, train = nothing, _work(training_flops(models.student.shape, own), 0, models.student.rates)
    for name, member in models.frozen.items():
        score = score.plus(_work(scoring_flops(member.shape, rows[name]), 0, member.rates))
        head = _work(head_flops(member.shape, rows[name]), 0, member.rates)
        score, train = (score.plus(head), train) if heads_in_scoring else (score, train.plus(head))
    train = train.plus(Work(0.0, models.optimizer_bytes / models.student.rates.bytes))
    return {"rollout": generation(models.engine, own) if sampled else nothing, "score": score, "train": train}


def _decoded(rows: Sequence[Lengths]) -> Iterator[tuple[int, int]]:
    """Sequences that are read and keys that they attend to, pass by pass: the last token drawn is never read."""
    ended, prompts = Counter[int](), Counter[int]()  # by length of the response
    for row in rows:
        for response in row.responses:
            ended[response] += 1
            prompts[response] += row.prompt
    active, keys_of_prompts = ended.total(), prompts.total()
    for position in range(1, max(ended, default=0)):
        active -= ended[position]
        keys_of_prompts -= prompts[position]
        yield active, keys_of_prompts + position * active


def _work(flops: float, moved: float, rates: Rates) -> Work:
    """Work of one pass, bound by its FLOPs or by the bytes that it moves."""
    matmul = flops / rates.flops
    return Work(matmul, max(matmul, moved / rates.bytes))


def _read(rows: Sequence[Lengths]) -> tuple[int, int]:
    """Tokens that go through the trunk, and query-key pairs of its attention."""
    tokens = pairs = 0
    for prompt, responses, shared in rows:
        tokens += prompt - shared + sum(responses) - len(responses)
        once = _pairs(prompt)
        pairs += once - _pairs(shared) + sum(_pairs(prompt + response - 1) - once for response in responses)
    return tokens, pairs


def _pairs(length: int) -> int:
    """Query-key pairs of a causal sequence."""
    return length * (length + 1) // 2


def _plain_attention(config: PretrainedConfig) -> bool:
    """Whether every layer attends to all that came before, and nothing routes tokens."""
    if any(getattr(config, name, None) for name in _UNKNOWN):
        return False
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return set(kinds) == {"full_attention"}
    return getattr(config, "sliding_window", None) is None


def _matrices(trunk: nn.Module) -> list[nn.Parameter] | None:
    """The matrices that every token is multiplied with; None when there are weights of another kind."""
    found = []
    for name, module in trunk.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.ndim > 1]
        if isinstance(module, nn.Embedding) or not own:
            continue
        if not isinstance(module, nn.Linear | Conv1D):
            return None
        if _in_force(trunk, name):
            found += own
    return found


def _in_force(trunk: nn.Module, name: str) -> bool:
    """Whether a matrix is of the model itself or of an adapter that is switched on."""
    for part in (".lora_A.", ".lora_B."):
        if part in name:
            layer, adapter = name.split(part)
            tuned: Any = trunk.get_submodule(layer)
            return not tuned.disable_adapters and adapter in tuned.active_adapters
    return True
