"""Which grader this is: a digest of its code and settings, written beside every figure that it gave."""

import hashlib
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any


def grader_version(verifier: object) -> str:
    """A digest that changes whenever verdicts could.

    Args:
        verifier: A verifier; its settings are its attributes without a leading underscore.

    Returns:
        16 hexadecimal digits of the code of this folder and of the verifier's own file, its settings, and the release
        of math-verify.
    """
    digest = hashlib.blake2b(digest_size=8)
    files = {*Path(__file__).parent.rglob("*.py"), Path(inspect.getfile(type(verifier)))}
    for file in sorted(files, key=lambda file: file.parts[-2:]):
        digest.update(file.read_bytes())
    digest.update(f"math-verify {version('math-verify')} {_settings(verifier)}".encode())
    return digest.hexdigest()


def _settings(value: Any) -> str:
    """A verifier's class and settings as text, those of verifiers within it included."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_settings, value)) + "]"
    if not hasattr(value, "__dict__"):
        return repr(value)
    public = {name: entry for name, entry in vars(value).items() if not name.startswith("_")}
    return f"{type(value).__qualname__}({', '.join(f'{name}={_settings(entry)}' for name, entry in public.items())})"
