"""Make the nano assets from nothing, through the project's own `gopd fit`: base, two experts, prompts, provenance.

    python -m gopd_lightning.nano.experts --work runs/nano

builds data and tokenizer, pretrains the base, makes both experts by GRPO, runs the default merge on them, and leaves
everything that ships in `runs/nano/stage/assets/nano`, in the layout of `assets/nano`. Steps whose result is there
already are not run again.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from gopd_lightning.nano.build import build

CONFIGS = Path("configs")
SPLITS = ("train", "val", "test")
EXPERTS = ("math", "code")


def make(work: Path, seed: int) -> None:
    """Run the whole chain.

    Args:
        work: Folder for everything; the configs in `configs/nano` name runs/nano.
        seed: Seed of data and training.
    """
    began = time.perf_counter()
    if not (work / "data" / "model").is_dir():
        build(work / "data", seed)
    fit(work / "base", CONFIGS / "nano" / "pretrain.yaml", seed)
    for domain in EXPERTS:
        fit(work / f"{domain}-expert", CONFIGS / "nano" / f"grpo_{domain}.yaml", seed)
    stage = work / "stage"
    assets = stage / "assets" / "nano"
    collect(work, assets)
    made = time.perf_counter() - began
    fit(stage / "runs" / "multi_teacher_merge", CONFIGS / "multi_teacher_merge.yaml", seed, stage)
    write_provenance(assets, stage / "runs" / "multi_teacher_merge" / "results.json", seed, made)
    print(f"{assets}: made in {made:.0f} s, measured in {time.perf_counter() - began - made:.0f} s")


def fit(run: Path, config: Path, seed: int, folder: Path = Path()) -> None:
    """One `gopd fit`, resumed or skipped when its run folder says so.

    Args:
        run: The run folder that the config names.
        config: The config.
        seed: Overrides the config's seed.
        folder: Working directory: the config's relative paths start there.
    """
    print(f"== {config}", flush=True)
    command = [sys.executable, "-m", "gopd_lightning", "fit", "--config", str(config.resolve())]
    command += ["--seed_everything", str(seed), "--trainer.default_root_dir", str(run.resolve())]
    subprocess.run([*command, "--ckpt_path", "last"], cwd=folder, check=True)


def collect(work: Path, assets: Path) -> None:
    """Copy what ships: models, tokenizers and prompt files; not the corpus.

    Args:
        work: Where the chain ran.
        assets: The new assets folder.
    """
    (assets / "data").mkdir(parents=True, exist_ok=True)
    for name, source in {"base": "base", **{f"{d}-expert": f"{d}-expert" for d in EXPERTS}}.items():
        shutil.copytree(work / source / "student", assets / name, dirs_exist_ok=True)
    for domain in EXPERTS:
        for split in SPLITS:
            shutil.copy(work / "data" / f"{domain}_{split}.jsonl", assets / "data")


def write_provenance(assets: Path, results: Path, seed: int, seconds: float) -> None:
    """Say beside the weights how they came to be and how good they are.

    Args:
        assets: The new assets folder.
        results: results.json of the default merge, which measures base and experts on the test prompts.
        seed: The seed.
        seconds: Wall time of data, pretraining and GRPO.
    """
    measured = json.loads(results.read_text())
    content = {
        "made_by": "make experts (python -m gopd_lightning.nano.experts)",
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "seed": seed,
        "seconds": round(seconds),
        "python": platform.python_version(),
        "configs": ["configs/nano/pretrain.yaml", *(f"configs/nano/grpo_{d}.yaml" for d in EXPERTS)],
        "test_accuracy": {name: figures for name, figures in measured.items() if name != "student"},
    }
    temporary = assets / "provenance.json.tmp"
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, assets / "provenance.json")


def _commit() -> str:
    """The commit of the code, marked when the tree has changes; empty outside a repository."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> None:
    """Parse the command line and make the assets."""
    parser = argparse.ArgumentParser(description="Make the nano base and experts from nothing.")
    parser.add_argument("--work", type=Path, default=Path("runs/nano"), help="folder for everything")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and training")
    arguments = parser.parse_args()
    make(arguments.work, arguments.seed)


if __name__ == "__main__":
    main()
