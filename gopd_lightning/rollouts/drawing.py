"""Drawing the next token of every row: one seed a row, the same draw whatever else is in the batch."""

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from gopd_lightning.rollouts.engine import Sampling

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def uniforms(seeds: Tensor, position: int) -> Tensor:
    """A number in [0, 1) for each seed at one position: SplitMix64, so no generator state is kept.

    Args:
        seeds: (B,) int64 seeds.
        position: Index of the response token.

    Returns:
        (B,) float64, a function of seed and position alone (Steele, Lea and Flood, OOPSLA 2014).
    """
    z = seeds + torch.tensor(_GOLDEN, device=seeds.device) * (position + 1)  # wraps, as it should
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    z = z ^ _shift(z, 31)
    return _shift(z, 11).double() * 2.0**-53


def draw(logits: Tensor, sampling: Sampling, seeds: Tensor, position: int) -> tuple[Tensor, Tensor]:
    """The next token of each row.

    Args:
        logits: (B, V) float32 over the real vocabulary.
        sampling: Temperature (0 is greedy), top_p and top_k.
        seeds: (B,) int64.
        position: Index of the response token.

    Returns:
        Ids (B,) and their log-probs (B,) under the distribution that they were drawn from; greedy tokens get
        their log-prob at temperature 1.
    """
    if sampling.temperature == 0:
        ids = logits.argmax(-1)
        return ids, _pick(logits.log_softmax(-1), ids)
    logits = _warpers(sampling)(None, logits / sampling.temperature)
    logprobs = logits.log_softmax(-1)
    mass = logprobs.double().exp().cumsum(-1)
    point = uniforms(seeds, position)[:, None] * mass[:, -1:]
    ids = torch.searchsorted(mass, point, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return ids, _pick(logprobs, ids)


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    """The truncations that the sampling asks for."""
    warpers = LogitsProcessorList()
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


def _pick(values: Tensor, ids: Tensor) -> Tensor:
    """values[i, ids[i]] of a (B, V) tensor, as (B,)."""
    return values.gather(-1, ids[:, None]).squeeze(-1)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64: the sign must not be smeared over the upper bits."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
