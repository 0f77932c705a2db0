"""One readable line from a parse error: jsonargparse names the last part of a key, this finds file and full key.

The YAML files of the command line are walked side by side with the signatures of the classes that they name.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml  # type: ignore[import-untyped]
from lightning.pytorch import Trainer

VERBS = ("fit", "validate", "test", "predict", "export")
TOP = ("seed_everything", "model", "data", "trainer", "ckpt_path", "weights_only", "verbose", "return_predictions")

_UNKNOWN = re.compile(r"(?:does not accept option|Option) '([^']+)'")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (\S+)")
_MISSING = re.compile(r"arguments are required: (.+)")
_CLASS = re.compile(
    r"given class_path '([^']+)'|import path string: (\S+)|no attribute '\w+'\. Got value: \w+\(class_path='([^']+)'"
)
_TYPE = re.compile(r"Parser key \"([^\"]+)\":")
_EXPECTED = re.compile(r"Expected an? <class '(?:\w+\.)*(\w+)'>")
_SUBCLASS = re.compile(r"Not a valid subclass of (\w+)")
_GIVEN = re.compile(r"(?:Got value|Given value): (.*)")
_NO_FILE = re.compile(r"File does not exist: '?([^']+)'?")
_NOISE = re.compile(r"Does not validate against any of the Union subtypes|Subtypes: .*|Given value.*|Errors:|\s+")


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


def explain(texts: Sequence[str], arguments: Sequence[str]) -> str:
    """Say what is wrong with a command line and its YAML files.

    Args:
        texts: What jsonargparse said: nested errors, the innermost first.
        arguments: The command line.

    Returns:
        One line with the file and the key, as far as they can be found, and a near name for a misspelt one.
    """
    if match := _NO_FILE.search(texts[-1]):
        return f"--config: there is no file {match[1]!r}"
    for file in _files(arguments):
        if broken := _broken(file):
            return broken
    nodes = [node for file in _files(arguments) for node in _nodes(file)]
    for text in texts:
        for pattern, tell in _CASES:
            if match := pattern.search(text):
                return tell(match, nodes, arguments)
    return _no_verb(arguments) if "subcommand" in texts[-1] else _flat(texts[-1])


def _unknown(match: re.Match[str], nodes: Sequence[Node], arguments: Sequence[str]) -> str:
    """A key that no class accepts."""
    names = match[1].split(".")
    if flag := _flag(names[-1], arguments):
        return f"{flag} is not an option{_near(names[-1], _all_options(nodes), _parent(flag))}"
    for node in nodes:
        for name in names:
            if node.options is not None and name in node.given and name not in node.options:
                return f"{node.key(name)} is not an option{_near(name, list(node.options))}"
    where = next((node.key(names[-1]) for node in nodes if names[-1] in node.given), match[1])
    return f"{where} is not an option{_near(names[-1], _all_options(nodes))}"


def _missing(match: re.Match[str], nodes: Sequence[Node], arguments: Sequence[str]) -> str:
    """A key that must be there."""
    name = match[1].split(",")[0].strip()
    leaf, parent = _leaf(name), name.rpartition(".")[0]
    if parent in VERBS or leaf in ("run", "out"):
        known = " and ".join(_leaf(part.strip()) for part in match[1].split(","))
        hint = "a --config file with it is needed" if parent else "gopd export --help shows how"
        return f"no {known} given: {hint}"
    for node in nodes:
        if node.options and node.options.get(leaf) and leaf not in node.given:
            return f"{node.key(leaf)} is missing"
    where = next((node.key(parent) for node in nodes if node.options and node.options.get(parent)), "")
    return f"{where}.{leaf} is missing" if where else f"{name} is missing"


def _no_class(match: re.Match[str], nodes: Sequence[Node], arguments: Sequence[str]) -> str:
    """A class_path that leads nowhere."""
    name = next(filter(None, match.groups()))
    node = next((node for node in nodes if node.given.get("class_path") == name), None)
    where = node.key("class_path") if node else _flag("class_path", arguments) or "class_path"
    module, _, short = name.rpartition(".")
    if not module:
        return f"{where}: {name} names no module; write it in full, as in gopd_lightning.GOPD"
    known = [*dir(_imported(module)), *getattr(_imported(module), "__all__", ())]
    return f"{where}: there is no {name}{_near(short, known, module)}"


def _wrong_type(match: re.Match[str], nodes: Sequence[Node], arguments: Sequence[str]) -> str:
    """A value of another type than its key has."""
    leaf = _leaf(match[1])
    given = found[1] if (found := _GIVEN.search(match.string)) else None
    holders = [node for node in nodes if leaf in node.given]
    holders = [node for node in holders if str(node.given[leaf]) == given] or holders
    where = _flag(leaf, arguments) or (holders[0].key(leaf) if holders else match[1])
    base = found[1] if (found := _SUBCLASS.search(match.string)) else None
    near = [node for node in nodes if re.sub(r"\[\d+\]$", "", node.at) == where]
    if misfit := next(filter(None, (_misfit(node, base) for node in near)), None):
        return misfit
    if "Unable to load config" in match.string:
        return f"{where}: expected a mapping of keys to values"
    expected = [name.replace("NoneType", "null") for name in dict.fromkeys(_EXPECTED.findall(match.string))]
    if expected and given is not None:
        return f"{where} is {given[:80]!r}: expected {' or '.join(expected)}"
    return f"{where}: {_flat(match.string[match.end() :])}"


def _misfit(node: Node, base: str | None) -> str | None:
    """What is wrong with an object that names its class: a key beside class_path, or the class itself."""
    if "class_path" not in node.given:
        return None
    if extra := next((key for key in node.given if key not in (node.options or ())), None):
        return f"{node.key(extra)} is not an option{_near(extra, ('init_args',))}"
    kind = _class(str(node.given["class_path"]))
    if base is None or kind is None or base in (parent.__name__ for parent in kind.__mro__):
        return None
    return f"{node.key('class_path')}: {node.given['class_path']} is not a {base}"


def _unrecognized(match: re.Match[str], nodes: Sequence[Node], arguments: Sequence[str]) -> str:
    """A flag that there is not."""
    name = match[1].partition("=")[0]
    return f"{name} is not an option{_near(_leaf(name), _all_options(nodes), _parent(name))}"


def _no_verb(arguments: Sequence[str]) -> str:
    """No verb, or none that is known."""
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    known = ", ".join(VERBS)
    if first is None or first in VERBS:
        return f"say what to do: {known}; gopd --help tells more"
    return f"{first} is not one of {known}{_near(first, VERBS)}"


_CASES = (
    (_UNKNOWN, _unknown),
    (_UNRECOGNIZED, _unrecognized),
    (_MISSING, _missing),
    (_CLASS, _no_class),
    (_TYPE, _wrong_type),
)


def _files(arguments: Sequence[str]) -> list[Path]:
    """The YAML files of the command line."""
    named = [b for a, b in zip(arguments, arguments[1:], strict=False) if a in ("--config", "-c")]
    named += [a.partition("=")[2] for a in arguments if a.startswith("--config=")]
    return [Path(name) for name in named if Path(name).is_file()]


def _broken(file: Path) -> str | None:
    """What is wrong with a file that is no YAML mapping."""
    try:
        content = yaml.safe_load(file.read_text())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        return f"{file}: not YAML at {place}: {error.problem}"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"{file}: not YAML: {_flat(str(error))}"
    if isinstance(content, Mapping):
        return None
    return f"{file}: {'the file is empty' if content is None else 'not a mapping of keys to values'}"


def _nodes(file: Path) -> Iterator[Node]:
    """Every object of a file, the outer ones first."""
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
        yield Node(file=file, path=path, given=value, options=dict.fromkeys(("class_path", "init_args"), False))
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
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        found |= {p.name: p.default is p.empty for p in named}
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
    kind = getattr(_imported(module), name, None)
    return kind if inspect.isclass(kind) else None


def _imported(module: str) -> Any:
    """A module by name, or None."""
    try:
        return import_module(module)
    except (ImportError, ValueError):
        return None


def _flag(leaf: str, arguments: Sequence[str]) -> str | None:
    """The command line's own setting of a key."""
    names = (argument.partition("=")[0] for argument in arguments if argument.startswith("--"))
    return next((name for name in names if _leaf(name) == leaf), None)


def _near(name: str, known: Sequence[str], parent: str = "") -> str:
    """A question about the most similar name, if there is one."""
    near = get_close_matches(name, known, n=1)
    if not near:
        return ""
    return f"; did you mean {parent}.{near[0]}?" if parent else f"; did you mean {near[0]}?"


def _all_options(nodes: Sequence[Node]) -> list[str]:
    return list(dict.fromkeys(name for node in nodes for name in node.options or ()))


def _leaf(name: str) -> str:
    return name.lstrip("-").rpartition(".")[2]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _flat(message: str) -> str:
    """All of a message in one line of bearable length."""
    return _NOISE.sub(" ", message).strip()[:300]
