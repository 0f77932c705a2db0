"""Rows for fine-tuning: which prompts the experts answer, and their answers as a file, raw and verified.

python -m study.rows prompts FOLDER SEED COUNT    # FOLDER/{math,code}.jsonl: COUNT training prompts a domain
python -m study.rows responses FOLDER             # FOLDER/{raw,verified}.jsonl from what gopd test left in by-*/
"""

import json
import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from study.plan import DATA, DOMAINS


def prompts(folder: Path, seed: int, count: int) -> None:
    """Draw training prompts.

    Args:
        folder: Where to.
        seed: Other prompts for every seed, as on-policy runs have them.
        count: Prompts a domain.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for domain in DOMAINS:
        lines = Path(DATA, f"{domain}_train.jsonl").read_text().splitlines()
        _write(folder / f"{domain}.jsonl", random.Random(f"{seed} {domain}").sample(lines, count))


def responses(folder: Path) -> None:
    """Gather the samples of both experts.

    Args:
        folder: Where `gopd test` has sampled, in by-math and by-code.
    """
    files = [file for domain in DOMAINS for file in folder.glob(f"by-{domain}/*/{domain}.jsonl")]
    samples = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    _write(folder / "raw.jsonl", map(_row, samples))
    _write(folder / "verified.jsonl", (_row(sample) for sample in samples if sample["reward"] == 1))


def _row(sample: dict[str, object]) -> str:
    return json.dumps({"prompt": sample["prompt"], "response": sample["response"], "domain": sample["set"]})


def _write(file: Path, lines: Iterable[str]) -> None:
    part = file.with_name(f".{file.name}.part")
    part.write_text("".join(f"{line}\n" for line in lines))
    os.replace(part, file)


if __name__ == "__main__":
    if sys.argv[1] == "prompts":
        prompts(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        responses(Path(sys.argv[2]))
