"""E2: the default run from nothing to its table: `gopd fit` on two nano experts, in a process of its own."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from models import CACHE
from side_by_side import row, write

CONFIG = "configs/multi_teacher_merge.yaml"
FOLDER = CACHE / "whole_run"


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    command = [sys.executable, "-m", "gopd_lightning", "fit", "--config", CONFIG]
    began = time.perf_counter()
    subprocess.run([*command, "--trainer.default_root_dir", str(FOLDER)], cwd=Path(__file__).parents[1], check=True)
    seconds = time.perf_counter() - began
    print(f"{CONFIG}: {seconds:.0f} s")
    print(
        write("whole_run", {"seconds": seconds, "summary": [row("E2", "gopd fit, all of it", seconds, "s", "<= 180")]})
    )


if __name__ == "__main__":
    main()
