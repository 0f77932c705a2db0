"""Programs a second through the sandbox, warm, two workers: `.venv/bin/python benchmarks/programs.py`."""

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from side_by_side import row

from gopd_lightning.verifiers.sandbox.pool import program_pool
from gopd_lightning.verifiers.worker import WorkerPool

WORKERS, REPEATS, JOBS, TESTS = 2, 5, 200, 6
LIMITS = {"cpu_seconds": 1.0, "wall_seconds": 20.0, "memory_mb": 512}
RESULTS = Path(__file__).with_name("results") / "programs.json"


def function_job(number: int) -> dict[str, Any]:
    program = f"def f(xs):\n kept = [x for x in xs if x > {number}]\n return min(kept, default=0)"
    return {"program": program, "fn_name": "f", "inputs": [[[i, 2, 3, 4]] for i in range(TESTS)], **LIMITS}


def stdin_job(number: int) -> dict[str, Any]:
    program = f"print(sum(map(int, input().split())) + {number})"
    return {"program": program, "fn_name": None, "inputs": [f"{i} 2 3\n" for i in range(TESTS)], **LIMITS}


def rate(pool: WorkerPool, jobs: list[dict[str, Any]]) -> float:
    """Jobs a second; every one must pass."""
    started = time.perf_counter()
    answers = pool.ask([(job, 120.0) for job in jobs])
    seconds = time.perf_counter() - started
    failed = [answer for answer in answers if answer.get("error") or len(answer["outputs"]) != TESTS]
    assert not failed, failed[0]
    return len(jobs) / seconds


def machine(sandbox: str) -> dict[str, Any]:
    facts = {"cores": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
    return {**facts, "machine": platform.machine(), "sandbox": sandbox, "load": round(os.getloadavg()[0], 1)}


def main() -> None:
    pool = program_pool(WORKERS, allow_weak=True)
    facts = machine(str(pool.hello()["sandbox"]))
    found = {}
    for name, make in (("function", function_job), ("stdin", stdin_job)):
        jobs = [make(number) for number in range(JOBS)]
        rate(pool, jobs[: 4 * WORKERS])
        runs = [rate(pool, jobs) for _ in range(REPEATS)]
        median = round(statistics.median(runs), 1)
        found[name] = {"programs_per_second": median, "runs": [round(run, 1) for run in runs]}
        print(f"{name}: {median} programs a second, {TESTS} tests each (runs {found[name]['runs']})")
    pool.close()
    RESULTS.parent.mkdir(exist_ok=True)
    summary = [row("PROG", f"{name} programs", found[name]["programs_per_second"], "programs/s") for name in found]
    content = {"summary": summary, "workers": WORKERS, "tests": TESTS, **found, **facts}
    text = json.dumps(content, indent=1) + "\n"
    whole = RESULTS.with_suffix(".part")
    whole.write_text(text)
    os.replace(whole, RESULTS)
    print(f"{facts} -> {RESULTS}")


if __name__ == "__main__":
    main()
