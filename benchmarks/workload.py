"""The same prompts and the same responses for every trainer: skewed lengths, imposed token by token.

Random or instructed, a model of 135M ends its answers where it likes. Here every prompt has its response, sampled once
from the student, and a trainer's own generation draws as it always does before its draw is replaced: the work is the
same, and so are the tokens that are scored and trained on, so that losses and gradients can be compared.
"""

import json
import math
import os
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from models import CACHE, smollm2
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor

MEAN, SPREAD, SHORTEST = 100.0, 0.8, 8  # of the lognormal lengths, in tokens
PEOPLE = (
    "a retired teacher",
    "a young nurse",
    "two brothers",
    "a bus driver",
    "a painter",
    "an old sailor",
    "a girl of ten",
    "a baker",
)
PLACES = ("on a small island", "in a mountain village", "near the harbour", "at the edge of a city")
EVENTS = (
    "found a letter",
    "lost a key",
    "planted a garden",
    "heard a strange sound",
    "won a prize",
    "missed the train",
)
ASK = "Tell what happened next, who helped, and what they learned from it in the end, in plain words for children."


@dataclass(frozen=True)
class Workload:
    """Prompts with the responses that are imposed on them.

    Attributes:
        texts: Prompts as text.
        prompts: Their token ids, all different.
        responses: Token ids of each response; the last is the end-of-sequence id.
        end: The end-of-sequence id.
    """

    texts: list[str]
    prompts: list[list[int]]
    responses: list[list[int]]
    end: int

    @property
    def tokens(self) -> int:
        """Response tokens in all."""
        return sum(len(response) for response in self.responses)

    @property
    def longest(self) -> int:
        """Tokens of the longest response."""
        return max(len(response) for response in self.responses)

    def cut(self, longest: int) -> "Workload":
        """The same prompts with responses of at most `longest` tokens, their end included."""
        responses = [ids if len(ids) <= longest else [*ids[: longest - 1], self.end] for ids in self.responses]
        return Workload(self.texts, self.prompts, responses, self.end)

    def response_of(self, prompt: Sequence[int]) -> list[int]:
        """The response of the prompt with these ids."""
        return self.responses[self.prompts.index(list(prompt))]


def lengths(count: int, longest: int, seed: int = 0) -> list[int]:
    """Lognormal lengths: the quantiles of the distribution, so that a small batch is skewed as a large one is.

    Args:
        count: Number of lengths.
        longest: Longer ones are cut to this.
        seed: Of their order.
    """
    normal = statistics.NormalDist(math.log(MEAN) - SPREAD**2 / 2, SPREAD)
    found = [round(math.exp(normal.inv_cdf((i + 0.5) / count))) for i in range(count)]
    random.Random(seed).shuffle(found)
    return [min(max(length, SHORTEST), longest) for length in found]


def prompt_texts(count: int, seed: int = 0) -> list[str]:
    """Different prompts of about 64 tokens."""
    chance = random.Random(seed)
    found = []
    for i in range(count):
        first, second = chance.sample(PEOPLE, 2)
        event, other = chance.sample(EVENTS, 2)
        what = f"{first} who lived {chance.choice(PLACES)} {event} on a day in {1950 + i}"
        found.append(f"Write a short story about {what}. A little later {second} came by and {other}. {ASK}\n\n")
    return found


def workload(count: int, longest: int, cache: Path = CACHE) -> Workload:
    """The workload of `count` prompts, its responses sampled once and kept.

    Args:
        count: Number of prompts.
        longest: Tokens of the longest response, its end included.
        cache: Folder that keeps them.
    """
    file = cache / f"workload-{count}-{longest}.json"
    if not file.exists():
        part = file.with_suffix(".part")
        part.write_text(json.dumps(vars(_sample(count, longest))))
        os.replace(part, file)
    return Workload(**json.loads(file.read_text()))


def _sample(count: int, longest: int) -> Workload:
    """Responses that the student might give, were their lengths its own."""
    folder = smollm2("student")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = prompt_texts(count)
    torch.manual_seed(0)
    found = model.generate(
        **tokenizer(texts, return_tensors="pt", padding=True),
        do_sample=True,
        min_new_tokens=longest,
        max_new_tokens=longest,
        suppress_tokens=tokenizer.all_special_ids,
    )[:, -longest:].tolist()
    end = tokenizer.eos_token_id
    responses = [[*ids[: length - 1], end] for ids, length in zip(found, lengths(count, longest), strict=True)]
    return Workload(texts, [tokenizer(text)["input_ids"] for text in texts], responses, end)


class ImposedTokens(LogitsProcessor):  # type: ignore[misc]
    """Leaves `generate` one token to draw: the one of each row's response.

    Args:
        work: What is imposed.
        prompts: Left-padded prompts (B, L) of this call.
        mask: 1 where they are not padding.
    """

    def __init__(self, work: Workload, prompts: Tensor, mask: Tensor) -> None:
        self.start = prompts.shape[1]
        rows = [work.response_of(row[real.bool()].tolist()) for row, real in zip(prompts, mask, strict=True)]
        self.tokens = torch.full((len(rows), work.longest), work.end)
        for i, ids in enumerate(rows):
            self.tokens[i, : len(ids)] = torch.tensor(ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) that are 0 for the imposed ids and minus infinity elsewhere."""
        ids = self.tokens[:, input_ids.shape[1] - self.start, None]
        return scores.fill_(-torch.inf).scatter_(1, ids, 0.0)  # in place: one pass over what is drawn from anyway


class ImposedDraw:
    """Takes the place of the draw of gopd's engine: draws, then answers with the token of each row's response.

    Args:
        draw: The engine's own.
        work: What is imposed.
        prompts: Token ids of each prompt.
        seeds: The seed of each, by which the engine tells rows apart.
    """

    def __init__(self, draw: Any, work: Workload, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
        self.draw = draw
        order = sorted(range(len(seeds)), key=lambda i: seeds[i])
        self.seeds = torch.tensor([seeds[i] for i in order])
        self.tokens = torch.full((len(seeds), work.longest), work.end)
        for row, i in enumerate(order):
            ids = work.response_of(prompts[i])
            self.tokens[row, : len(ids)] = torch.tensor(ids)

    def __call__(self, logits: Tensor, sampling: Any, seeds: Tensor, position: int | Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B,) that are imposed and the log-probs (B,) of those that were drawn."""
        _, logprobs = self.draw(logits, sampling, seeds, position)
        column = torch.as_tensor(position).expand(len(seeds)).clamp(max=self.tokens.shape[1] - 1)
        return self.tokens[torch.searchsorted(self.seeds, seeds), column], logprobs
