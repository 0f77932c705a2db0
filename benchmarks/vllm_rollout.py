"""R1's peer vLLM: the cases of benchmarks/rollout.py through both engines in turns, in vLLM's own environment.

`make test-vllm` makes that environment; then `.venv/vllm/bin/python benchmarks/vllm_rollout.py [float32|bfloat16 ...]`.
The hand-over of new weights, which only vLLM needs, is timed by itself.
"""

import json
import sys
import time
from typing import Any

import rollout
from side_by_side import RESULTS, in_turns, medians, write

from gopd_lightning.rollouts.vllm_engine import VLLMEngine

REPEATS = 3
WAYS = ("gopd", "vllm")


def measured(dtype: str) -> dict[str, Any]:
    """Tokens a second of both engines in every case, and vLLM's seconds to start and to take weights."""
    lm = rollout.model(rollout.DTYPES[dtype])
    cases = {}
    for count, equal, most in (sizes for of, *sizes in rollout.CASES if of == dtype):
        for skewed in (False, True):
            todo = rollout.work(count, skewed, equal, most)
            ways = {name: rollout.briefly(rollout.WAYS[name], lm, todo) for name in WAYS}
            seconds = medians(in_turns(ways, REPEATS))
            rates = {f"{name}_tokens_per_s": round(sum(todo.lengths) / seconds[name], 1) for name in WAYS}
            name = f"{count} prompts, {'skewed' if skewed else 'equal'}, {dtype}"
            cases[name] = {"tokens": sum(todo.lengths), **rates, "gopd_over_vllm": ratio(seconds)}
            print(f"{name}: {json.dumps(cases[name])}", flush=True)
    return {"cases": cases, **weights(lm)}


def ratio(seconds: dict[str, float]) -> float:
    """How many times as fast as vLLM the engine in process is."""
    return round(seconds["vllm"] / seconds["gopd"], 2)


def weights(lm: Any) -> dict[str, float]:
    """Seconds of a start (the import left out) and, the best of three, of new weights."""
    engine = VLLMEngine(max_model_len=512)
    found = []
    for version in range(4):
        began = time.perf_counter()
        engine.sync(lm, version)
        found.append(round(time.perf_counter() - began, 2))
    return {"start_s": found[0], "sync_s": min(found[1:])}


def main() -> None:
    file = RESULTS / "vllm_rollout.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    dtypes = {**before.get("dtypes", {}), **{dtype: measured(dtype) for dtype in sys.argv[1:] or rollout.DTYPES}}
    print(write("vllm_rollout", {"repeats": REPEATS, "dtypes": dtypes}))


if __name__ == "__main__":
    main()
