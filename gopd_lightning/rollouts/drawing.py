"""Drawing the next token of every row: one seed a row, the same draw whatever else is in the batch."""

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from gopd_lightning.rollouts.engine import Sampling

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_LOGITS = 2**21  # drawn from at a time: what is made on the way stays in the processor's cache
_BLOCK = 256  # ids whose probabilities are summed before the block of the drawn id is looked into


def uniforms(seeds: Tensor, position: int | Tensor) -> Tensor:
    """A number in [0, 1) for each seed at one position: SplitMix64, so no generator state is kept.

    Args:
        seeds: (B,) int64 seeds.
        position: Index of the response token, one for all rows or (B,) int64.

    Returns:
        (B,) float64, a function of seed and position alone (Steele, Lea and Flood, OOPSLA 2014).
    """
    z = seeds + torch.tensor(_GOLDEN, device=seeds.device) * (position + 1)  # wraps, as it should
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    z = z ^ _shift(z, 31)
    return _shift(z, 11).double() * 2.0**-53


def draw(logits: Tensor, sampling: Sampling, seeds: Tensor, position: int | Tensor) -> tuple[Tensor, Tensor]:
    """The next token of each row.

    Args:
        logits: (B, V) over the real vocabulary, any floating dtype; drawn from in float32.
        sampling: Temperature (0 is greedy), top_p and top_k.
        seeds: (B,) int64.
        position: Index of the response token, one for all rows or (B,) int64.

    Returns:
        Ids (B,) and their float32 log-probs (B,) under the distribution that they were drawn from; greedy tokens
        get their log-prob at temperature 1.
    """
    points = uniforms(seeds, position)
    rows = max(1, _LOGITS // logits.shape[-1])
    parts = zip(torch.split(logits, rows), torch.split(points, rows), strict=True)
    drawn = [_draw(some.float(), sampling, u) for some, u in parts]
    return torch.cat([ids for ids, _ in drawn]), torch.cat([logprobs for _, logprobs in drawn])


def _draw(logits: Tensor, sampling: Sampling, points: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from a few rows of float32 logits at points (B,) of [0, 1)."""
    if sampling.temperature == 0:
        ids = logits.argmax(-1)
        return ids, _pick(logits, ids) - logits.logsumexp(-1)
    logits = logits / sampling.temperature if sampling.temperature != 1 else logits
    logits = _warpers(sampling)(None, logits)
    top = logits.amax(-1, keepdim=True)
    mass = (logits - top).exp_()
    ids, total = _inverse(mass, points)
    return ids, _pick(logits, ids) - top.squeeze(-1) - total.log().float()


def _inverse(mass: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Where the cumulative sum of each row of `mass` (B, V) passes points x total, and the totals (B,), float64.

    The sums of blocks of ids are cumulated first, then the ids of one block: a whole cumulative sum in float64 of
    every row costs more than the layer that made the logits.
    """
    vocabulary = mass.shape[-1]
    width = _BLOCK if vocabulary > 4 * _BLOCK else vocabulary
    if vocabulary % width:
        mass = torch.nn.functional.pad(mass, (0, -vocabulary % width))
    blocks = mass.view(len(mass), -1, width)
    sums = blocks.sum(-1).double()
    ends = sums.cumsum(-1)
    total = ends[:, -1]
    block = _passed(ends, points * total)
    begin = _pick(ends, block) - _pick(sums, block)
    share = (points * total - begin) / _pick(sums, block)
    inside = blocks[torch.arange(len(block), device=block.device), block].double().cumsum(-1)
    share = share.clamp(0, 1 - 2.0**-53)  # rounding must not lead past the last id that has any probability
    return block * width + _passed(inside, share * inside[:, -1]), total


def _passed(ends: Tensor, points: Tensor) -> Tensor:
    """The first column of each row of rising `ends` (B, K) that is above its point (B,)."""
    found = torch.searchsorted(ends, points[:, None], right=True).squeeze(-1)
    return found.clamp(max=ends.shape[-1] - 1)


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
