"""Which weights these are: a digest of a model's files."""

import hashlib
from pathlib import Path

from gopd_lightning.models.folders import base_path

_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def weights_digest(path: str) -> str:
    """A digest of the weight files behind a path, those of an adapter's base included.

    Args:
        path: Model folder, hub id that has been loaded before, GGUF file, or adapter folder.

    Returns:
        32 hexadecimal digits: equal for equal files, wherever they lie.
    """
    digest = hashlib.blake2b(digest_size=16)
    for place in dict.fromkeys((base_path(path), path)):
        for file in _files(place):
            digest.update(file.name.encode())
            _add(digest, file)
    return digest.hexdigest()


def _files(path: str) -> list[Path]:
    place = Path(path)
    if place.is_file():
        return [place]
    if not place.is_dir():
        from huggingface_hub import snapshot_download

        place = Path(snapshot_download(path, allow_patterns=list(_WEIGHTS), local_files_only=True))
    return sorted(file for pattern in _WEIGHTS for file in place.glob(pattern))


def _add(digest: "hashlib.blake2b", file: Path) -> None:
    with file.open("rb") as content:
        while piece := content.read(2**24):
            digest.update(piece)
