"""One readable line from a parse error: jsonargparse names the last part of a key, this finds file and full key.

The YAML files of the command line are walked side by side with the signatures of the classes that they name.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from gopd_lightning.yaml_nodes import Node, imported, nodes_of, what_is_broken, yaml_files

VERBS = ("fit", "validate", "test", "predict", "export", "merge", "compare", "plan")

_UNKNOWN = re.compile(r"(?:does not accept option|Option) '([^']+)'")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (\S+)")
_MISSING = re.compile(r"arguments are required: (.+)")
_CLASS = re.compile(
    r"given class_path '([^']+)'|import path string: (\S+)|no attribute '\w+'\. Got value: \w+\(class_path='([^']+)'"
)
_TYPE = re.compile(r"Parser key \"([^\"]+)\":")
_EXPECTED = re.compile(r"Expected an? <class '(?:\w+\.)*(\w+)'>")
_SUBCLASS = re.compile(r"^Import path (\S+) does not correspond to a subclass of (\w+)")
_GIVEN = re.compile(r"(?:Got value|Given value): (.*)")
_NO_FILE = re.compile(r"File does not exist: '?([^']+)'?")
_NOISE = re.compile(r"Does not validate against any of the Union subtypes|Subtypes: .*|Given value.*|Errors:|\s+")


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
    for file in yaml_files(arguments):
        if broken := what_is_broken(file):
            return broken
    nodes = [node for file in yaml_files(arguments) for node in nodes_of(file)]
    for text in texts:
        for pattern, tell in _CASES:
            if match := pattern.search(text):
                return tell(match, nodes, arguments)
    return _no_verb(arguments) if "subcommand" in texts[-1] else _flat(texts[-1])


def overlooked(arguments: Sequence[str]) -> str | None:
    """An unknown key that jsonargparse lets pass, because its value is an empty mapping.

    Args:
        arguments: The command line.

    Returns:
        The line about it, or None.
    """
    for file in yaml_files(arguments):
        for node in () if what_is_broken(file) else nodes_of(file):
            for name, value in node.given.items():
                if value == {} and node.options is not None and name not in node.options:
                    return f"{node.key(name)} is not an option{_near(name, list(node.options))}"
    return None


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
    where = _class_key(name, nodes, arguments)
    module, _, short = name.rpartition(".")
    if not module:
        return f"{where}: {name} names no module; write it in full, as in gopd_lightning.GOPD"
    known = [*dir(imported(module)), *getattr(imported(module), "__all__", ())]
    return f"{where}: there is no {name}{_near(short, known, module)}"


def _wrong_type(match: re.Match[str], nodes: Sequence[Node], arguments: Sequence[str]) -> str:
    """A value of another type than its key has."""
    leaf = _leaf(match[1])
    given = found[1] if (found := _GIVEN.search(match.string)) else None
    holders = [node for node in nodes if leaf in node.given]
    holders = [node for node in holders if str(node.given[leaf]) == given] or holders
    where = _flag(leaf, arguments) or (holders[0].key(leaf) if holders else match[1])
    near = [node for node in nodes if re.sub(r"\[\d+\]$", "", node.at) == where]
    if misfit := next(filter(None, (_misfit(node) for node in near)), None):
        return misfit
    if "Unable to load config" in match.string:
        return f"{where}: expected a mapping of keys to values"
    expected = [name.replace("NoneType", "null") for name in dict.fromkeys(_EXPECTED.findall(match.string))]
    if expected and given is not None:
        return f"{where} is {given[:80]!r}: expected {' or '.join(expected)}"
    return f"{where}: {_flat(match.string[match.end() :])}"


def _misfit(node: Node) -> str | None:
    """The key that an object with a class_path must not have, if there is one."""
    if "class_path" not in node.given:
        return None
    extra = next((key for key in node.given if key not in (node.options or ())), None)
    return None if extra is None else f"{node.key(extra)} is not an option{_near(extra, ('init_args',))}"


def _wrong_class(match: re.Match[str], nodes: Sequence[Node], arguments: Sequence[str]) -> str:
    """A class_path that leads to a class of another kind."""
    return f"{_class_key(match[1], nodes, arguments)}: {match[1]} is not a {match[2]}"


def _class_key(name: str, nodes: Sequence[Node], arguments: Sequence[str]) -> str:
    """Where a class_path is given."""
    node = next((node for node in nodes if node.given.get("class_path") == name), None)
    return node.key("class_path") if node else _flag("class_path", arguments) or "class_path"


def _unrecognized(match: re.Match[str], nodes: Sequence[Node], arguments: Sequence[str]) -> str:
    """A flag that there is not; of one into a list, the parser's message has lost the beginning."""
    said = match[1].partition("=")[0]
    flags = (argument.partition("=")[0] for argument in arguments)
    name = next((flag for flag in flags if flag.endswith(said.lstrip("-"))), said)
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
    (_SUBCLASS, _wrong_class),
    (_TYPE, _wrong_type),
)


def _flag(leaf: str, arguments: Sequence[str]) -> str | None:
    """The command line's own setting of a key."""
    names = (argument.partition("=")[0] for argument in arguments if argument.startswith("--"))
    return next((name for name in names if _leaf(name) == leaf), None)


def _near(name: str, known: Sequence[str], parent: str = "") -> str:
    """A question about the most similar name, if there is one; a name that is known has its place elsewhere."""
    if name in known:
        return " here"
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
