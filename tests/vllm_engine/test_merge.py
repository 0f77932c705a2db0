"""The multi-teacher merge with rollouts by the real vLLM: the student gets as good as with transformers' engine."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has an environment of its own")
ROOT = Path(__file__).parents[2]
CONFIGS = (ROOT / "configs/multi_teacher_merge.yaml", Path(__file__).with_name("merge.yaml"))
PROMPTS = 512  # of each domain's validation file
BASE = {"math": 0.488, "code": 0.506}  # avg@4 of the base on test prompts, README


def accuracy(run: Path, *overlays: Path) -> dict[str, float]:
    """Validation accuracy (temperature 1) of the trained student by domain."""
    command = [sys.executable, "-m", "gopd_lightning", "fit"]
    command += [word for config in (*CONFIGS, *overlays) for word in ("--config", str(config))]
    command += ["--trainer.default_root_dir", str(run)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with (run / "metrics.csv").open() as rows:
        last = [row for row in csv.DictReader(rows) if row.get("val/math/avg@1")][-1]
    gaps = [float(last[f"engine_gap/{domain}"]) for domain in BASE if last.get(f"engine_gap/{domain}")]
    assert all(gap < 1e-3 for gap in gaps)
    return {domain: float(last[f"val/{domain}/avg@1"]) for domain in BASE}


@pytest.mark.timeout(600)
def test_the_merge_reaches_the_accuracy_of_the_transformers_engine(tmp_path):
    ours = accuracy(tmp_path / "transformers")
    theirs = accuracy(tmp_path / "vllm", ROOT / "configs/engine/vllm.yaml")
    for domain, base in BASE.items():
        stderr = (2 * ours[domain] * (1 - ours[domain]) / PROMPTS) ** 0.5
        assert abs(theirs[domain] - ours[domain]) < 3 * stderr
        assert theirs[domain] > base + 0.1  # the student has learned: the base would pass the line above
