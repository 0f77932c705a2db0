"""The rollout engine protocol and the sampling settings: what may stand behind the `Rollout` callback."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from gopd_lightning.errors import InputError
from gopd_lightning.records import Completion, TokenIds

Done = Callable[[int, Completion], None]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How responses are drawn.

    Args:
        n: Samples a prompt.
        max_new_tokens: Longest response; longer ones are cut, trained on and counted as truncated.
        temperature: Softmax temperature; 0 is greedy.
        top_p: Nucleus mass kept; 1 keeps everything.
        top_k: Number of ids kept; 0 keeps everything.
    """

    n: int = 1
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be sampled with.

        Raises:
            InputError: Naming the setting.
        """
        bounds = {
            "n": self.n >= 1,
            "max_new_tokens": self.max_new_tokens >= 1,
            "temperature": self.temperature >= 0,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
        }
        for name, holds in bounds.items():
            if not holds:
                raise InputError(f"sampling.{name} = {getattr(self, name)} is out of range")

    @property
    def truncated(self) -> bool:
        """Whether some ids can never be drawn, so that the samples are not from the scored policy."""
        return self.top_p < 1 or self.top_k > 0

    def greedy(self) -> "Sampling":
        """The same limit with one arg-max answer a prompt."""
        return Sampling(n=1, max_new_tokens=self.max_new_tokens, temperature=0.0)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What an engine must know of the tokens.

    Attributes:
        size: Number of real ids; a head's padding rows above it can never be drawn.
        stop_ids: Ids that end a response.
    """

    size: int
    stop_ids: tuple[int, ...]


@runtime_checkable
class RolloutEngine(Protocol):
    """Samples token ids from the student: in process on transformers, in vLLM, or on a vLLM server."""

    def sync(self, student: nn.Module, version: int) -> None:
        """Bring the engine's weights up to `student`'s and drop every cached prefix.

        Args:
            student: The Hugging Face model to sample from.
            version: The weights' version; a second call with the same module and version does nothing.
        """

    def generate(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        vocabulary: Vocabulary,
        done: Done | None = None,
    ) -> list[Completion]:
        """Sample `sampling.n` completions a prompt.

        Args:
            prompts: Token ids of each prompt.
            sampling: How to draw.
            seeds: One seed a completion, `len(prompts) * sampling.n`; a completion depends on its prompt, the
                weights and its seed, and not on what else is in the batch.
            vocabulary: Real vocabulary and stop ids.
            done: Told each completion's number as soon as it is finished, so that a kill loses no finished one.

        Returns:
            Completions, the n of the first prompt first.
        """
        ...

    def sleep(self) -> None:
        """Give the memory of weights and caches back around the update."""

    def wake(self) -> None:
        """Undo `sleep` before the next rollout."""
