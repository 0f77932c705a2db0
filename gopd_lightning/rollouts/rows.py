"""From prompts to graded rows: sample with an engine, decode once, ask the verifiers."""

from collections import Counter
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from gopd_lightning.records import Prompt, Row, seed_of
from gopd_lightning.rollouts.engine import RolloutEngine, Sampling, Vocabulary
from gopd_lightning.verifiers.protocol import Verifier


def sample_rows(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: tuple[int | str, ...],
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    reader: str = "student",
) -> list[Row]:
    """Sample every prompt with an engine that has its weights.

    Args:
        engine: The engine.
        prompts: The prompts.
        sampling: How to draw.
        seed: First parts of the sampling seeds, (seed, step); prompt and sample number follow.
        tokenizer: Decodes the responses.
        vocabulary: Real ids and stop ids.
        reader: Which model samples: it reads the prompts by its own chat template.

    Returns:
        Rows, the samples of one prompt side by side.
    """
    if not prompts:
        return []
    seen: Counter[int] = Counter()  # a prompt that comes twice in a step gets further samples, not the same ones
    seeds = []
    for prompt in prompts:
        seeds += [seed_of(*seed, prompt.uid, k + sampling.n * seen[prompt.uid]) for k in range(sampling.n)]
        seen[prompt.uid] += 1
    found = engine.generate([prompt.ids_for(reader) for prompt in prompts], sampling, seeds, vocabulary)
    texts = tokenizer.batch_decode([completion.ids for completion in found], skip_special_tokens=True)
    return [
        Row(prompt=prompts[i // sampling.n], completion=completion, sample=i % sampling.n, text=text)
        for i, (completion, text) in enumerate(zip(found, texts, strict=True))
    ]


def grade(rows: Sequence[Row], verifiers: Mapping[str, Verifier]) -> None:
    """Set the reward of every row whose domain has a verifier.

    Args:
        rows: Sampled rows, changed in place.
        verifiers: By domain.
    """
    for domain, verifier in verifiers.items():
        own = [row for row in rows if row.prompt.domain == domain]
        if not own:
            continue
        rewards = verifier.verify([row.prompt for row in own], [row.text for row in own])
        for row, reward in zip(own, rewards, strict=True):
            row.reward = reward
