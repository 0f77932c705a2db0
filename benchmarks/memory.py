"""Peak memory of one piece of work, in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def peak_of_process(script: str, *arguments: object) -> float:
    """What a script that prints `peak_of` its work prints, in MB.

    Args:
        script: File of the script.
        *arguments: What it is called with.
    """
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def peak_of(work: Callable[[], object]) -> float:
    """Peak memory in MB of work that is done a second time, above what the first time left."""
    work()
    Path("/proc/self/clear_refs").write_text("5")  # begins to look for a new peak
    before = status("VmRSS")
    work()
    return (status("VmHWM") - before) / 1024


def status(key: str) -> int:
    """A line of this process's status, in KiB."""
    text = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(key)))
