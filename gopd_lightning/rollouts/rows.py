"""From prompts to graded rows: sample with an engine, decode once, ask the verifiers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from gopd_lightning.records import Completion, Prompt, Row, Verdict, seed_of
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


def sample_pairs(
    engine: RolloutEngine,
    pairs: Sequence[tuple[Prompt, int]],
    sampling: Sampling,
    seed: tuple[int | str, ...],
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    done: Callable[[Row], None],
) -> None:
    """Sample the given samples of prompts: what `sample_rows` would give, of which some are there already.

    Args:
        engine: The engine.
        pairs: Prompt and number of the sample, the samples of one prompt side by side.
        sampling: How to draw.
        seed: First parts of the sampling seeds, as in `sample_rows`.
        tokenizer: Decodes the responses.
        vocabulary: Real ids and stop ids.
        done: Told every sample as soon as it is finished.
    """
    missing = Counter(prompt.uid for prompt, _ in pairs)
    whole = [pair for pair in pairs if missing[pair[0].uid] == sampling.n]  # one prefill for all n
    single = [pair for pair in pairs if missing[pair[0].uid] != sampling.n]
    for some, each in ((whole, sampling), (single, replace(sampling, n=1))):

        def tell(i: int, completion: Completion, some: Sequence[tuple[Prompt, int]] = some) -> None:
            text = tokenizer.decode(completion.ids, skip_special_tokens=True)
            done(Row(prompt=some[i][0], completion=completion, sample=some[i][1], text=str(text)))

        if some:
            prompts = [prompt.ids for prompt, _ in some[:: each.n]]
            engine.generate(prompts, each, [seed_of(*seed, p.uid, k) for p, k in some], vocabulary, tell)


def grade(rows: Sequence[Row], verifiers: Mapping[str, Verifier]) -> None:
    """Ask the verifiers about every row whose domain has one.

    Args:
        rows: Sampled rows, changed in place. A verifier that fails on one of them costs that row its reward and
            no other: its verdict says so.
        verifiers: By domain.
    """
    for domain, verifier in verifiers.items():
        own = [row for row in rows if row.prompt.domain == domain]
        for row, verdict in zip(own, _verdicts(verifier, own), strict=True):
            row.verdict = verdict


def _verdicts(verifier: Verifier, rows: Sequence[Row]) -> list[Verdict]:
    """Grade all rows at once; where that fails, row by row, to find those at fault."""
    if not rows:
        return []
    try:
        found = verifier.verify([row.prompt for row in rows], [row.text for row in rows])
        return [_verdict(one) for one in found]
    except Exception as error:
        if len(rows) > 1:
            return [verdict for row in rows for verdict in _verdicts(verifier, [row])]
        reason = f"the verifier failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return [Verdict(reward=0.0, reason=reason, crashed=True)]


def _verdict(found: Verdict | float) -> Verdict:
    """A verdict, whatever a verifier gave; a reward outside [0, 1] is the verifier's failure."""
    verdict = found if isinstance(found, Verdict) else Verdict(reward=float(found))
    if not 0 <= verdict.reward <= 1:
        raise ValueError(f"a reward of {verdict.reward}, which is not in [0, 1]")
    return verdict
