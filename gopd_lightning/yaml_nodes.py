"""The YAML files of a command line as objects, each with what the class that it stands for accepts."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from lightning.pytorch import Trainer

TOP = ("seed_everything", "model", "data", "trainer", "ckpt_path", "weights_only", "verbose", "return_predictions")
CLASS = ("class_path", "init_args", "dict_kwargs")


@dataclass(frozen=True, kw_only=True)
class Node:
    """An object of a YAML file, and what its class accepts.

    Attributes:
        file: The YAML file.
        path: Its key, such as `model.init_args.teachers[1]`; empty at the top.
        given: Its keys and values.
        options: Name -> whether it must be given; None where any key may stand.
    """

    file: str
    path: str
    given: Mapping[str, Any]
    options: Mapping[str, bool] | None

    @property
    def at(self) -> str:
        """File and full key."""
        return f"{self.file}: {self.path}"

    def key(self, name: str) -> str:
        """File and full key of one of its entries."""
        return f"{self.at}.{name}" if self.path else f"{self.at}{name}"


def yaml_files(arguments: Sequence[str]) -> list[Path]:
    """The YAML files of a command line that are there.

    Args:
        arguments: The command line.
    """
    named = [b for a, b in zip(arguments, arguments[1:], strict=False) if a in ("--config", "-c")]
    named += [a.partition("=")[2] for a in arguments if a.startswith("--config=")]
    return [Path(name) for name in named if Path(name).is_file()]


def what_is_broken(file: Path) -> str | None:
    """What is wrong with a file that is no YAML mapping; None if it is one.

    Args:
        file: The file.
    """
    try:
        content = yaml.safe_load(file.read_text())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        return f"{file}: not YAML at {place}: {error.problem}"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"{file}: not YAML: {str(error).splitlines()[0]}"
    if isinstance(content, Mapping):
        return None
    return f"{file}: {'the file is empty' if content is None else 'not a mapping of keys to values'}"


def nodes_of(file: Path) -> Iterator[Node]:
    """Every object of a file, the outer ones first.

    Args:
        file: A YAML file that holds a mapping.
    """
    content = yaml.safe_load(file.read_text())
    yield Node(file=str(file), path="", given=content, options=dict.fromkeys(TOP, False))
    for key, value in content.items():
        yield from _below(str(file), str(key), value, (Trainer,) if key == "trainer" else ())


def _below(file: str, path: str, value: Any, kinds: Sequence[type]) -> Iterator[Node]:
    """The objects at and below one value; `kinds` are the classes that its key may hold."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _below(file, f"{path}[{i}]", item, kinds)
    if not isinstance(value, Mapping):
        return
    if "class_path" in value:
        yield Node(
            file=file, path=path, given=value, options=dict.fromkeys(("class_path", "init_args", "dict_kwargs"), False)
        )
        kind = _class(str(value["class_path"]))
        yield from _below(file, f"{path}.init_args", value.get("init_args"), () if kind is None else (kind,))
        return
    hints = _hints(kinds)
    yield Node(file=file, path=path, given=value, options=_options(kinds))
    for key, item in value.items():
        yield from _below(file, f"{path}.{key}", item, hints.get(key, ()))


def _options(kinds: Sequence[type]) -> dict[str, bool] | None:
    """What the constructors accept: name -> must be given."""
    found: dict[str, bool] = {}
    for kind in kinds:
        parameters = inspect.signature(kind).parameters.values()
        if any(p.kind == p.VAR_KEYWORD for p in parameters):
            return None
        found |= {p.name: p.default is p.empty for p in parameters if p.kind != p.VAR_POSITIONAL}
    return found if kinds else None


def _hints(kinds: Sequence[type]) -> dict[str, list[type]]:
    """The dataclasses that each option of the constructors may hold."""
    found: dict[str, list[type]] = {}
    for kind in kinds:
        try:
            hints = get_type_hints(kind.__init__)  # type: ignore[misc]
        except (NameError, TypeError):  # names that exist for type checkers only
            continue
        found |= {name: list(_dataclasses(hint)) for name, hint in hints.items()}
    return found


def _dataclasses(hint: Any) -> Iterator[type]:
    if inspect.isclass(hint) and is_dataclass(hint):
        yield hint
    for part in get_args(hint):
        yield from _dataclasses(part)


def _class(path: str) -> type | None:
    """The class behind a class_path, or None."""
    module, _, name = path.rpartition(".")
    kind = getattr(imported(module), name, None)
    return kind if inspect.isclass(kind) else None


def imported(module: str) -> Any:
    """A module by name, or None.

    Args:
        module: Its name.
    """
    try:
        return import_module(module)
    except (ImportError, ValueError):
        return None
