"""Frozen models: teachers and references, loaded once each, adapters sharing their base, never trained.

The bank is not an `nn.Module` on purpose: what a LightningModule registers lands in every checkpoint and is
moved and cast with the student (tried on Lightning 2.6). Every rank holds its own copy, or its shard.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gopd_lightning.errors import InputError
from gopd_lightning.logprobs import TokenScores
from gopd_lightning.models.folders import adapter_base
from gopd_lightning.models.loading import adapter_name, load_frozen
from gopd_lightning.models.scoring import LocalScorer
from gopd_lightning.models.shards import Work
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.records import TokenIds

if TYPE_CHECKING:
    from gopd_lightning.models.served import VLLMTeacher

_Trunk = tuple[str, str]  # path and dtype


@dataclass(frozen=True)
class _Member:
    """Which loaded trunk a name stands for, and under which adapter (None: the trunk itself)."""

    trunk: _Trunk
    adapter: str | None


class FrozenBank:
    """All frozen models of a run, by name.

    Identical paths are loaded once, and adapters of one base share it; the base itself may be a member too
    (the adapters are switched off for it). A model with a `url` is not loaded: its server scores.

    Args:
        specs: The models by name. Names of equal models may repeat under different names.
        vocabulary: Number of real token ids.
        device: Where they live.
        temperature: Divides their logits.
        max_loaded: Full models that may be on the device at a time; the one that has rested longest leaves, to the
            CPU's memory, or (on the CPU) to be read from its files again. None keeps all of them. Score all rows of
            one model before those of the next: a model is loaded whenever another has taken its place.
        place: Shards a model over the ranks in place; None keeps a whole copy on every rank. A model with adapters
            is whole everywhere.

    Raises:
        InputError: max_loaded is below 1; a served model and a temperature other than 1.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        vocabulary: int,
        device: torch.device,
        temperature: float = 1.0,
        max_loaded: int | None = None,
        place: Work | None = None,
    ) -> None:
        if max_loaded is not None and max_loaded < 1:
            raise InputError(f"model.max_loaded_models is {max_loaded}: let at least 1 frozen model be loaded, or null")
        check_served(specs, temperature, hidden=False)
        self._members = {name: _member(spec) for name, spec in specs.items() if spec.url is None}
        self._served = {name: _teacher(spec.url) for name, spec in specs.items() if spec.url is not None}
        self._trunks: dict[_Trunk, nn.Module] = {}  # the one that has rested longest first
        self._away: dict[_Trunk, nn.Module] = {}
        self.device = device
        self.vocabulary = vocabulary
        self.temperature = temperature
        self.max_loaded = max_loaded
        self._shard = place
        self.forwards: dict[str, int] = dict.fromkeys(specs, 0)
        for trunk in list(dict.fromkeys(member.trunk for member in self._members.values()))[:max_loaded]:
            self._place(trunk)

    def __repr__(self) -> str:
        return f"FrozenBank({', '.join(self.forwards)}; {len(self._trunks)} loaded)"

    def __contains__(self, name: str) -> bool:
        return name in self.forwards

    @property
    def loaded(self) -> int:
        """Number of full models on the device."""
        return len(self._trunks)

    def in_step(self, name: str) -> bool:
        """Whether all ranks must score with this model whenever one does: it, or its loading, may be sharded."""
        return self._shard is not None and name in self._members

    @torch.no_grad()
    def score(self, name: str, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> TokenScores:
        """Scores of the response tokens under one member; see `models.scoring.Scorer`.

        Rows of one prompt share its computation when they come in one call: give a whole step's rows. The trainer's
        precision is the student's: a frozen model computes in its own dtype, also where autocast is on.
        """
        self.forwards[name] += 1
        if name in self._served:
            return self._served[name].score(prompts, responses, self.device)
        with self.using(name) as model, torch.autocast(self.device.type, enabled=False):
            return LocalScorer(model, self.vocabulary, self.temperature).score(prompts, responses)

    @contextmanager
    def using(self, name: str) -> Iterator[nn.Module]:
        """The member's model with its adapter in force, for scoring or sampling.

        Raises:
            InputError: The model is on a server.
        """
        if name in self._served:
            raise InputError(f"{name} is served at {self._served[name].url}: it scores and cannot be sampled from here")
        member = self._members[name]
        model: Any = self._place(member.trunk)
        if member.adapter is not None:
            model.set_adapter(adapter_name(member.adapter))
            model.requires_grad_(False)
            yield model
        elif hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                yield model
        else:
            yield model

    def _place(self, trunk: _Trunk) -> nn.Module:
        """A trunk on the device, as the one used last."""
        model = self._trunks.pop(trunk, None)
        if model is None:
            self._make_room()
            model = self._away.pop(trunk, None)
            model = (self._load(*trunk) if model is None else model).to(self.device)
        self._trunks[trunk] = model
        return model

    def _make_room(self) -> None:
        """Send away what has rested longest, until one more trunk may come."""
        while self.max_loaded is not None and len(self._trunks) >= self.max_loaded:
            trunk = next(iter(self._trunks))
            model = self._trunks.pop(trunk)
            if self.device.type != "cpu":
                self._away[trunk] = model.to("cpu")
            del model
            gc.collect()  # models hold themselves in circles

    def _load(self, path: str, dtype: str) -> nn.Module:
        """One trunk with every adapter that a member asks of it."""
        members = self._members.values()
        adapters = [m.adapter for m in members if m.trunk == (path, dtype) and m.adapter is not None]
        return load_frozen(ModelSpec(path=path, dtype=dtype), list(dict.fromkeys(adapters)), self._shard)


def check_served(specs: Mapping[str, ModelSpec], temperature: float, hidden: bool) -> None:
    """Refuse what models on servers cannot say.

    Args:
        specs: The frozen models by name.
        temperature: What they are scored at.
        hidden: The objective looks at whole distributions.

    Raises:
        InputError: Naming the model and the setting.
    """
    for name, spec in specs.items():
        if spec.url is not None and hidden:
            raise InputError(f"{name}: a model with a url gives log-probs of sampled tokens only: estimator: sampled")
        if spec.url is not None and temperature != 1.0:
            raise InputError(f"{name}: a model with a url scores at temperature 1: set model.frozen_temperature to 1")


def _teacher(url: str) -> "VLLMTeacher":
    from gopd_lightning.models.served import VLLMTeacher

    return VLLMTeacher(url)


def _member(spec: ModelSpec) -> _Member:
    """The trunk and adapter behind a spec; local paths are made canonical so that equal ones are equal."""
    base = adapter_base(spec.path)
    if base is None:
        return _Member((_canonical(spec.path), spec.dtype), None)
    return _Member((_canonical(base), spec.dtype), _canonical(spec.path))


def _canonical(path: str) -> str:
    """An absolute path for what exists on disk; hub ids stay as they are."""
    return str(Path(path).resolve()) if Path(path).exists() else path
