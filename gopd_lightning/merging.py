"""Merging models without training: weight averages, and extrapolation away from a base (ExPO, arXiv 2404.16792).

Every tensor of the result is a linear combination of those of the models, computed in float32. One file of the result
and one tensor of each model are in memory at a time, so that two 30B models merge in the memory of one shard. PEFT
adapters of one base merge into an adapter whose change of the base is exactly the combination of theirs.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from gopd_lightning.errors import InputError
from gopd_lightning.export import put_in_place
from gopd_lightning.models.folders import adapter_base, model_folder

INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf")
_TIED = "lm_head.weight"
_PLAIN: dict[str, Any] = {
    "use_dora": False,
    "modules_to_save": None,
    "bias": "none",
    "rank_pattern": {},
    "alpha_pattern": {},
}


def merge(
    models: list[str], out: str, weights: list[float] | None = None, base: str | None = None, scale: float = 1.0
) -> None:
    """Write `base + scale * (weighted average of the models - base)` as a Hugging Face folder, or as an adapter.

    Args:
        models: Hugging Face folders, run folders, hub ids, or PEFT adapters of one base.
        out: The folder to write; what is there is replaced.
        weights: One weight a model, 1 in sum; by default all are equal.
        base: The model that all of them came from. Not read, and not needed, while scale is 1; adapters bring theirs.
        scale: 1 averages, above 1 extrapolates past the models (ExPO's alpha is scale - 1), below 1 goes back.

    Raises:
        InputError: Weights that do not fit the models, a model without safetensors, models of different shapes.
    """
    paths = [_folder(path) for path in models]
    shares = _checked(paths, weights, base, scale)
    adapters = [path for path in paths if adapter_base(str(path))]
    if adapters and len(adapters) < len(paths):
        raise InputError(f"{adapters[0]} is an adapter and another model is not: merge models of one kind")
    combination = [(path, scale * share) for path, share in zip(paths, shares, strict=True)]
    with put_in_place(Path(out)) as fresh:
        if adapters:
            _merge_adapters(combination, fresh)
            return
        if base is not None and scale != 1.0:
            combination.append((_folder(base), 1.0 - scale))
        _merge_models(combination, fresh)


def _checked(paths: Sequence[Path], weights: Sequence[float] | None, base: str | None, scale: float) -> list[float]:
    """The weight of each model in their average."""
    if not paths:
        raise InputError("gopd merge: name at least one model")
    if weights is not None and len(weights) != len(paths):
        raise InputError(f"--weights has {len(weights)} numbers for {len(paths)} models: give one for each")
    shares = list(weights) if weights is not None else [1 / len(paths)] * len(paths)
    if not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise InputError(
            f"--weights add up to {sum(shares):g}: they must add up to 1; use --base and --scale to go past"
        )
    if scale != 1.0 and base is None and not adapter_base(str(paths[0])):
        raise InputError(f"--scale {scale:g} needs --base, the model that the others came from")
    return shares


def _folder(path: str) -> Path:
    """The local folder of a model; a hub id is downloaded."""
    folder = Path(model_folder(path))
    if folder.is_dir():
        return folder
    if folder.exists() or path.count("/") != 1:
        raise InputError(f"{path} is not a folder with a model: gopd merge reads safetensors")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, ignore_patterns=["*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx"]))
    except Exception as error:
        raise InputError(f"{path} is no folder here, and the hub says: {' '.join(str(error).split())[:200]}") from error


# Full models


def _merge_models(combination: Sequence[tuple[Path, float]], out: Path) -> None:
    """Combine tensor by tensor, in files as the first model has them."""
    first = combination[0][0]
    places = [_places(path) for path, _ in combination]
    _check_names(combination, places)
    files: dict[str, list[str]] = {}
    for name, place in places[0].items():
        files.setdefault(place.name, []).append(name)
    for file, names in files.items():
        merged = {name: _combined(name, combination, places) for name in names}
        save_file(merged, out / file, metadata={"format": "pt"})
    _copy_rest(first, out)
    if (first / INDEX).is_file():
        shutil.copy2(first / INDEX, out / INDEX)


def _places(folder: Path) -> dict[str, Path]:
    """The file of each tensor of a model."""
    if (folder / INDEX).is_file():
        return {name: folder / file for name, file in json.loads((folder / INDEX).read_text())["weight_map"].items()}
    single = folder / "model.safetensors"
    if not single.is_file():
        raise InputError(f"{folder} holds neither model.safetensors nor {INDEX}: gopd merge reads safetensors only")
    with safe_open(single, framework="pt") as content:
        return dict.fromkeys(content.keys(), single)


def _check_names(combination: Sequence[tuple[Path, float]], places: Sequence[Mapping[str, Path]]) -> None:
    """All models have the same tensors, but for a tied head, which some write and others do not."""
    for (path, _), found in zip(combination[1:], places[1:], strict=True):
        different = sorted(found.keys() ^ places[0].keys())
        if different and not (different == [_TIED] and _tied(found) and _tied(places[0])):
            raise InputError(
                f"{combination[0][0]} and {path} do not have the same weights: {different[0]} is in one of them only"
            )


def _tied(places: Mapping[str, Path]) -> bool:
    """Whether a model's head is its embeddings: not written, or written as their copy."""
    if _TIED not in places:
        return True
    embeddings = _embeddings(places)
    return torch.equal(_read(places[_TIED], _TIED), _read(places[embeddings], embeddings))


def _combined(name: str, combination: Sequence[tuple[Path, float]], places: Sequence[Mapping[str, Path]]) -> Tensor:
    """One tensor of the result, in the first model's dtype."""
    total: Tensor | None = None
    first: Tensor | None = None
    for (path, weight), found in zip(combination, places, strict=True):
        own = name if name in found else _embeddings(found)
        part = _read(found[own], own)
        first = part if first is None else first
        if part.shape != first.shape:
            shapes = f"{tuple(first.shape)} in {combination[0][0]} and {tuple(part.shape)} in {path}"
            raise InputError(f"{name} is {shapes}: only models of one shape merge")
        if not part.is_floating_point():
            return first
        total = part.float() * weight if total is None else total.add_(part, alpha=weight)
    assert total is not None
    assert first is not None
    return total.to(first.dtype).contiguous()


def _embeddings(places: Mapping[str, Path]) -> str:
    """The name of the input embeddings, which a tied head shares."""
    return next(name for name in places if name.endswith("embed_tokens.weight"))


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as content:
        tensor: Tensor = content.get_tensor(name)
        return tensor


def _copy_rest(first: Path, out: Path) -> None:
    """Configuration, tokenizer and whatever else lies beside the first model's weights."""
    for file in first.iterdir():
        if file.is_file() and not any(file.match(pattern) for pattern in _WEIGHTS):
            shutil.copy2(file, out / file.name)


# Adapters


def _merge_adapters(combination: Sequence[tuple[Path, float]], out: Path) -> None:
    """One adapter of all ranks side by side: its product is the sum of the products."""
    configs = [_plain_lora(path) for path, _ in combination]
    bases = dict.fromkeys(str(Path(str(adapter_base(str(path)))).resolve()) for path, _ in combination)
    if len(bases) > 1:
        raise InputError(f"the adapters have different bases, {' and '.join(list(bases)[:2])}: merge those of one")
    rank = sum(config["r"] for config in configs)
    with _opened([path / ADAPTER for path, _ in combination]) as files:
        parts = [
            (file, config["r"], weight * _scaling(config))
            for file, config, (_, weight) in zip(files, configs, combination, strict=True)
        ]
        names = dict.fromkeys(name for file in files for name in file.keys())  # noqa: SIM118 (not a mapping)
        merged = {name: _side_by_side(name, parts) for name in names}
    save_file(merged, out / ADAPTER, metadata={"format": "pt"})
    _copy_rest(combination[0][0], out)
    targets = sorted({target for config in configs for target in config["target_modules"]})
    config = configs[0] | {"r": rank, "lora_alpha": rank, "use_rslora": False, "target_modules": targets}
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _plain_lora(path: Path) -> dict[str, Any]:
    """The configuration of an adapter that is a plain low-rank product on linear layers.

    Raises:
        InputError: It is more than that.
    """
    config: dict[str, Any] = json.loads((path / "adapter_config.json").read_text())
    odd = [name for name, plain in _PLAIN.items() if (config.get(name) or plain) != plain]
    if config.get("peft_type") != "LORA" or odd or not isinstance(config.get("target_modules"), list):
        why = f"its {odd[0]} is {config[odd[0]]}" if odd else "it is not LoRA on named modules"
        raise InputError(f"{path}: only plain LoRA adapters merge, and {why}; merge it into its base first")
    return config


def _scaling(config: Mapping[str, Any]) -> float:
    """What an adapter's product is multiplied by."""
    rank = config["r"]
    return float(config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _side_by_side(name: str, parts: Sequence[tuple[Any, int, float]]) -> Tensor:
    """One matrix of the merged adapter; zeros stand for an adapter that leaves this module alone."""
    down = ".lora_A." in name or ".lora_embedding_A" in name
    known = next(file.get_tensor(name) for file, _, _ in parts if name in file.keys())  # noqa: SIM118 (not a mapping)
    found = []
    for file, rank, factor in parts:
        if name not in file.keys():  # noqa: SIM118 (not a mapping)
            found.append(known.new_zeros((rank, known.shape[1]) if down else (known.shape[0], rank)).float())
        else:
            found.append(file.get_tensor(name).float() * (1.0 if down else factor))
    return torch.cat(found, dim=0 if down else 1).to(known.dtype).contiguous()


@contextmanager
def _opened(files: Sequence[Path]) -> Iterator[list[Any]]:
    with ExitStack() as stack:
        missing = next((file for file in files if not file.is_file()), None)
        if missing is not None:
            raise InputError(f"{missing} is missing: gopd merge reads safetensors only")
        yield [stack.enter_context(safe_open(file, framework="pt")) for file in files]
