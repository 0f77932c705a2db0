"""What the trainer says of an engine's samples, and an optimizer step's stand-in."""

import torch

from gopd_lightning.models.scoring import LocalScorer

PROMPTS = [[7, 23, 40 + i, *range(50, 52 + i % 9)] for i in range(16)]


def change(lm, size=0.05, seed=0):
    """Move every weight a little, as an optimizer step does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in lm.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))


def gap(lm, completions, temperature=1.0, n=1, size=None, prompts=PROMPTS):
    """Largest difference between the trainer's log-probs of the sampled ids and the engine's."""
    ids = torch.tensor([i for c in completions for i in c.ids])
    scorer = LocalScorer(lm, size or lm.config.vocab_size, temperature)
    with torch.no_grad():
        scored = scorer.score([p for p in prompts for _ in range(n)], [c.ids for c in completions]).logprobs_of(ids)
    return float((scored - torch.tensor([x for c in completions for x in c.logprobs])).abs().max())
