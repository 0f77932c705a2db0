"""Looking at a model's files before any weights load: is it there, is it whole, what is it?"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from gopd_lightning.errors import InputError
from gopd_lightning.models.specs import ModelSpec

DTYPES = ("float32", "bfloat16", "float16")


def adapter_base(path: str) -> str | None:
    """The base model's path if `path` is a PEFT adapter folder, else None.

    A relative base is looked for from the working directory first, then from the adapter's folder.

    Raises:
        InputError: The adapter's configuration cannot be read.
    """
    config = Path(path) / "adapter_config.json"
    if not config.is_file():
        return None
    base = str(_entry(config, "base_model_name_or_path"))
    beside = Path(path) / base
    return str(beside) if not Path(base).exists() and beside.exists() else base


def model_folder(path: str) -> str:
    """The model of a run when `path` is a run folder, else `path` itself.

    Raises:
        InputError: A run folder that has not exported its student.
    """
    folder = Path(path)
    if not (folder / "config.yaml").is_file() or (folder / "config.json").is_file():
        return path
    if not (folder / "student").is_dir():
        hint = f"write it with `gopd export {path} OUT` and name OUT instead"
        raise InputError(f"{path} is a run folder without a `student` folder: {hint}")
    return str(folder / "student")


def base_path(path: str) -> str:
    """The path of the full model behind `path`: its base when it is an adapter, else itself."""
    return adapter_base(path) or path


def hub_arguments(path: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` that find the model, its config or its tokenizer at `path`."""
    if path.endswith(".gguf"):
        file = Path(path)
        return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    return {"pretrained_model_name_or_path": path}


def check_model(spec: ModelSpec, key: str) -> PretrainedConfig:
    """Make sure that a model can be loaded, reading a few kilobytes only.

    Args:
        spec: The model.
        key: Where the YAML names it, for the message.

    Returns:
        The model's configuration (the base's, for an adapter).

    Raises:
        InputError: No such model, an unreadable config, missing or truncated weight files, an unknown dtype.
    """
    if spec.dtype not in DTYPES:
        raise InputError(f"{key}.dtype is {spec.dtype!r}; known: {', '.join(DTYPES)}")
    try:
        base = base_path(spec.path)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    for path in dict.fromkeys((spec.path, base)) if spec.url is None else ():  # a served model needs no weights here
        _check_files(path, key)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(**hub_arguments(base))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{key}: no usable model at {spec.path!r}: {_first_line(error)}") from error
    unsupported = [name for name in ("logit_scale", "logits_scaling") if getattr(config, name, 1) not in (None, 1)]
    if unsupported:
        raise InputError(f"{key}: {spec.path} scales its logits ({unsupported[0]}), which is not supported")
    return config


def load_tokenizer(spec: ModelSpec, key: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model (an adapter without one uses its base's).

    Raises:
        InputError: There is none, or it has no end-of-sequence token.
    """
    has_own = (Path(spec.path) / "tokenizer_config.json").is_file()
    path = spec.path if has_own else base_path(spec.path)
    files = (
        "tokenizer*",
        "vocab*",
        "*.model",
    )  # without any, transformers makes an empty one from the config
    if Path(path).is_dir() and not any(found for pattern in files for found in Path(path).glob(pattern)):
        raise InputError(f"{key}: the folder {path!r} holds no tokenizer")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**hub_arguments(path))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{key}: no usable tokenizer at {path!r}: {_first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise InputError(f"{key}: the tokenizer at {path!r} has no end-of-sequence token")
    return tokenizer


def stop_ids(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a response: the tokenizer's end of sequence and those of the model's generation config.

    Chat models often end a turn with another token than a text (Qwen3 has two).
    """
    config = generation_config(base_path(spec.path))
    if config is None:
        return (int(tokenizer.eos_token_id),)
    more = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return tuple(sorted({int(i) for i in (tokenizer.eos_token_id, *more) if i is not None}))


def generation_config(path: str) -> GenerationConfig | None:
    """The generation config of a model; None for the many that have none."""
    try:
        return GenerationConfig.from_pretrained(hub_arguments(path)["pretrained_model_name_or_path"])
    except (OSError, ValueError):
        return None


def check_same_tokens(student: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, key: str, path: str) -> None:
    """Make sure that response ids mean the same to both models.

    Raises:
        InputError: Naming the first id that differs.
    """
    ours, theirs = student.get_vocab(), other.get_vocab()
    if ours == theirs:
        return
    names = {index: token for token, index in theirs.items()}
    for token, index in sorted(ours.items(), key=lambda item: item[1]):
        if names.get(index) != token:
            raise InputError(
                f"{key}: the tokenizer of {path} differs from the student's: id {index} is "
                f"{names.get(index)!r} there and {token!r} in the student; on-policy distillation needs one vocabulary"
            )
    extra = min(set(names) - set(ours.values()))
    raise InputError(f"{key}: the tokenizer of {path} has id {extra} ({names[extra]!r}), which the student's lacks")


def _check_files(path: str, key: str) -> None:
    """Check that a local folder or GGUF file is whole; anything that is not on disk is left to the hub."""
    folder = Path(path)
    if path.endswith(".gguf") and not folder.is_file():
        raise InputError(f"{key}: there is no file {path!r}")
    if not folder.is_dir():
        looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1
        if looks_local and not folder.exists() and "/" in path:
            raise InputError(f"{key}: there is no model folder {path!r}")
        return None
    if (folder / "adapter_config.json").is_file():
        return _check_weights(folder, "adapter_model", key)
    if not (folder / "config.json").is_file():
        raise InputError(f"{key}: the folder {path!r} holds no config.json: not a Hugging Face model")
    return _check_weights(folder, "model", key)


def _check_weights(folder: Path, stem: str, key: str) -> None:
    """Check that every safetensors shard is there and has a readable header."""
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(_entry(index, "weight_map").values()))
        except InputError as error:
            raise InputError(f"{key}: {error}") from error
    elif (folder / f"{stem}.safetensors").is_file():
        shards = [f"{stem}.safetensors"]
    elif list(folder.glob("*.bin")) or list(folder.glob("*.gguf")):
        return
    else:
        raise InputError(f"{key}: the folder '{folder}' holds no weights ({stem}.safetensors)")
    for shard in shards:
        try:
            with safe_open(folder / shard, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise InputError(f"{key}: '{folder / shard}' is missing or damaged: {_first_line(error)}") from error


def _entry(file: Path, name: str) -> Any:
    """One entry of a JSON file.

    Raises:
        InputError: The file is damaged, or has no such entry.
    """
    try:
        return json.loads(file.read_text())[name]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{file}' is damaged, or names no {name}: fetch the model again") from error


def _first_line(error: Exception) -> str:
    """The first line of an error's text, without the trailing stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
