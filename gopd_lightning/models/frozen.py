"""Frozen models: teachers and references, loaded once each, adapters sharing their base, never trained.

The bank is not an `nn.Module` on purpose: what a LightningModule registers lands in every checkpoint and is
moved and cast with the student (tried on Lightning 2.6). Every rank holds its own copy.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gopd_lightning.errors import InputError
from gopd_lightning.logprobs import TokenScores
from gopd_lightning.models.folders import adapter_base
from gopd_lightning.models.loading import adapter_name, load_adapters, load_causal_lm
from gopd_lightning.models.scoring import LocalScorer
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.records import TokenIds

_Trunk = tuple[str, str]  # path and dtype


@dataclass(frozen=True)
class _Member:
    """Which loaded trunk a name stands for, and under which adapter (None: the trunk itself)."""

    trunk: _Trunk
    adapter: str | None


class FrozenBank:
    """All frozen models of a run, by name.

    Identical paths are loaded once, and adapters of one base share it; the base itself may be a member too
    (the adapters are switched off for it).

    Args:
        specs: The models by name. Names of equal models may repeat under different names.
        vocabulary: Number of real token ids.
        device: Where they live.
        temperature: Divides their logits.
        max_loaded: Full models that may be on the device at a time; the one that has rested longest leaves, to the
            CPU's memory, or (on the CPU) to be read from its files again. None keeps all of them. Score all rows of
            one model before those of the next: a model is loaded whenever another has taken its place.

    Raises:
        InputError: max_loaded is below 1.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        vocabulary: int,
        device: torch.device,
        temperature: float = 1.0,
        max_loaded: int | None = None,
    ) -> None:
        if max_loaded is not None and max_loaded < 1:
            raise InputError(f"model.max_loaded_models is {max_loaded}: let at least 1 frozen model be loaded, or null")
        self._members = {name: _member(spec) for name, spec in specs.items()}
        self._trunks: dict[_Trunk, nn.Module] = {}  # the one that has rested longest first
        self._away: dict[_Trunk, nn.Module] = {}
        self.device = device
        self.vocabulary = vocabulary
        self.temperature = temperature
        self.max_loaded = max_loaded
        self.forwards: dict[str, int] = dict.fromkeys(specs, 0)
        for trunk in list(dict.fromkeys(member.trunk for member in self._members.values()))[:max_loaded]:
            self._place(trunk)

    def __repr__(self) -> str:
        return f"FrozenBank({', '.join(self._members)}; {len(self._trunks)} loaded)"

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def loaded(self) -> int:
        """Number of full models on the device."""
        return len(self._trunks)

    @torch.no_grad()
    def score(self, name: str, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> TokenScores:
        """Scores of the response tokens under one member; see `models.scoring.Scorer`.

        Rows of one prompt share its computation when they come in one call: give a whole step's rows. The trainer's
        precision is the student's: a frozen model computes in its own dtype, also where autocast is on.
        """
        self.forwards[name] += 1
        with self.using(name) as model, torch.autocast(self.device.type, enabled=False):
            return LocalScorer(model, self.vocabulary, self.temperature).score(prompts, responses)

    @contextmanager
    def using(self, name: str) -> Iterator[nn.Module]:
        """The member's model with its adapter in force, for scoring or sampling."""
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
        model: nn.Module = load_causal_lm(ModelSpec(path=path, dtype=dtype))
        members = self._members.values()
        adapters = [m.adapter for m in members if m.trunk == (path, dtype) and m.adapter is not None]
        if adapters:
            model = load_adapters(model, list(dict.fromkeys(adapters)))
        return model.eval().requires_grad_(False)


def _member(spec: ModelSpec) -> _Member:
    """The trunk and adapter behind a spec; local paths are made canonical so that equal ones are equal."""
    base = adapter_base(spec.path)
    if base is None:
        return _Member((_canonical(spec.path), spec.dtype), None)
    return _Member((_canonical(base), spec.dtype), _canonical(spec.path))


def _canonical(path: str) -> str:
    """An absolute path for what exists on disk; hub ids stay as they are."""
    return str(Path(path).resolve()) if Path(path).exists() else path
