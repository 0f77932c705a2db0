"""Python values as JSON, types kept: how arguments and return values cross the border of a sandbox.

Standard library only, and nothing of gopd: the program runner loads this file inside the sandbox. What crosses is
data: an object of a program's own class arrives as an `Opaque`, which equals nothing.
"""

from typing import Any

TAG = "$type"
_PLAIN = (str, int, float, bool, type(None))
_LISTS: dict[str, type[Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_LARGE = 10**300  # JSON readers cap the digits of an integer


class Opaque:
    """A value that is not data: an object of some class, known by the name of its class alone."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name} object>"


def encode(value: Any) -> Any:
    """A value as what `json.dumps` writes without loss.

    Args:
        value: Any object; subclasses of the built-in containers count as these.

    Returns:
        None, booleans, numbers, text, lists and dicts; other types as {"$type": name, "value": ...}.

    Raises:
        RecursionError: The value contains itself.
    """
    if type(value) is int and abs(value) > _LARGE:
        return {TAG: "int", "value": hex(value)}
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list):
        return [encode(item) for item in value]
    for name, kind in _LISTS.items():
        if isinstance(value, kind):
            return {TAG: name, "value": [encode(item) for item in value]}
    return _encode_rare(value)


def _encode_rare(value: Any) -> Any:
    if isinstance(value, dict):
        if all(type(key) is str and key != TAG for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {TAG: "dict", "value": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, complex):
        return {TAG: "complex", "value": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {TAG: "bytes", "value": value.hex()}
    for kind in (bool, int, float, str):  # a subclass of one counts as it
        if isinstance(value, kind):
            return encode(kind(value))
    return {TAG: "object", "value": str(type(value).__name__)}


def decode(data: Any) -> Any:
    """The value that `encode` wrote.

    Args:
        data: What `json.loads` gave.

    Returns:
        The value; an `Opaque` for an object of a class of its own.

    Raises:
        ValueError: The data was not written by `encode`.
    """
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    if TAG not in data:
        return {key: decode(item) for key, item in data.items()}
    try:
        return _decode_tagged(data[TAG], data["value"])
    except (KeyError, TypeError) as error:
        raise ValueError("not an encoded value") from error


def _decode_tagged(name: str, value: Any) -> Any:
    if name in _LISTS:
        return _LISTS[name](decode(item) for item in value)
    if name == "dict":
        return {decode(key): decode(item) for key, item in value}
    if name == "int":
        return int(value, 16)
    if name == "complex":
        return complex(*value)
    if name == "bytes":
        return bytes.fromhex(value)
    return Opaque(str(value))
