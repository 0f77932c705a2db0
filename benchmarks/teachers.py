"""E3: a step's scoring with one teacher and with four, as full models, as adapters and offloaded, lambda 1 and 1.25.

SmolLM2-135M's shape in bfloat16 with random weights; 8 rows of 64 + 64 tokens, those of a teacher together. Each way
has a process of its own, and they take turns. Memory is the peak of a step, loading included where a step loads, above
what the process had before its models.
"""

import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from memory import status
from models import CACHE, kept
from peft import LoraConfig, get_peft_model
from scoring import WORDS, model
from side_by_side import row, write
from turns import Side, peak_mb, tell, wait

from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.models.specs import ModelSpec

ROWS, PROMPT, RESPONSE, ROUNDS, RANK = 8, 64, 64, 5, 16
WAYS = ("one", "four full", "four adapters", "four offloaded")
LAMBDAS = (1.0, 1.25)
Point = dict[str, Any]


def full(name: str) -> str:
    return str(kept(CACHE / "teachers" / name, lambda folder: model(torch.bfloat16).save_pretrained(folder)))  # type: ignore[operator]


def adapter(name: str) -> str:
    def make(base: str, folder: Path) -> None:
        config = LoraConfig(r=RANK, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        found = get_peft_model(model(torch.bfloat16), config)  # type: ignore[arg-type]
        found.peft_config["default"].base_model_name_or_path = base
        found.save_pretrained(str(folder))

    return str(kept(CACHE / "teachers" / name, partial(make, full("base"))))


def paths(way: str, scale: float) -> dict[str, str]:
    """Folders by name: teachers, and the reference where lambda asks for one."""
    reference = {} if scale == 1 else {"reference": full("base")}
    if way == "one":
        return {"teacher 0": full("full 0"), **reference}
    make = adapter if way == "four adapters" else full
    kind = "adapter" if way == "four adapters" else "full"
    return {f"teacher {i}": make(f"{kind} {i}") for i in range(4)} | reference


@torch.no_grad()
def step(bank: FrozenBank, names: list[str]) -> None:
    """Log-probs of every row under its teacher, and of all rows under the reference."""
    teachers = [name for name in names if name != "reference"]
    for name in names:
        count = ROWS if name == "reference" else ROWS // len(teachers)
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(WORDS, (count, PROMPT + RESPONSE), generator=generator)
        prompts, responses = rows[:, :PROMPT], rows[:, PROMPT:]
        bank.score(name, prompts.tolist(), responses.tolist()).logprobs_of(responses.flatten())


def alone(way: str, scale: float) -> None:
    """The process of one way: a step whenever it is asked for."""
    found = paths(way, scale)
    specs = {name: ModelSpec(path=path, dtype="bfloat16") for name, path in found.items()}
    torch.ones(512, 512) @ torch.ones(512, 512)  # libraries load what they load
    before = status("VmRSS") / 1024
    bank = FrozenBank(specs, WORDS, torch.device("cpu"), max_loaded=1 if "offloaded" in way else None)
    step(bank, list(found))
    Path("/proc/self/clear_refs").write_text("5")  # begins to look for a new peak: files read at the start are let go
    tell({})
    while True:
        wait()
        began = time.perf_counter()
        step(bank, list(found))
        tell({"seconds": time.perf_counter() - began, "mb": peak_mb() - before, "loaded": bank.loaded})


def measured() -> dict[str, Point]:
    """Median seconds and peak memory of each way, all of them in turns."""
    sides = {}
    for way in WAYS:
        for scale in LAMBDAS:
            paths(way, scale)  # made here, so that no process remembers the making
            sides[f"{way}, lambda {scale:g}"] = Side(f"E3 {way} {scale}", "teachers.py", {"way": way, "scale": scale})
    points: dict[str, list[Point]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            points[name].append(side.step(RESPONSE))
    for side in sides.values():
        side.end()
    return {
        name: {
            "seconds": round(statistics.median(point["seconds"] for point in found), 3),
            "mb": round(found[-1]["mb"]),
            "loaded": found[-1]["loaded"],
        }
        for name, found in points.items()
    }


def predicted() -> dict[str, dict[str, float]]:
    """What each way should cost, in passes over the rows and in weights of one full model."""
    lm = model(torch.bfloat16)
    size = sum(weight.numel() for weight in lm.parameters())
    lora = sum(RANK * (576 + out) * 30 for out in (576, 192))  # query and value projections of every block
    models = {"one": 1, "four full": 4, "four adapters": 1 + 4 * lora / size, "four offloaded": 1}
    more = {"one": 1, "four full": 1, "four adapters": 0, "four offloaded": 0}  # for a reference
    return {
        f"{way}, lambda {scale:g}": {
            "passes": 1 + (scale != 1),
            "models": round(models[way] + (scale != 1) * more[way], 3),
        }
        for way in WAYS
        for scale in LAMBDAS
    }


def summary(found: dict[str, Point]) -> list[dict[str, Any]]:
    one, rows = found["one, lambda 1"], []
    for way in WAYS[1:]:
        goal = "<= 1.1" if way == "four adapters" else None
        point = found[f"{way}, lambda 1"]
        rows.append(row("E3", f"{way} against one: memory", point["mb"] / one["mb"], "x", goal))
        rows.append(row("E3", f"{way} against one: seconds", point["seconds"] / one["seconds"], "x"))
    for way in WAYS:
        base, more = (found[f"{way}, lambda {scale:g}"] for scale in LAMBDAS)
        rows.append(row("E3", f"{way}, lambda 1.25 against 1: memory", more["mb"] / base["mb"], "x"))
        rows.append(row("E3", f"{way}, lambda 1.25 against 1: seconds", more["seconds"] / base["seconds"], "x"))
    return rows


def main() -> None:
    found = measured()
    for name, point in found.items():
        print(f"{name}: {json.dumps(point)}", flush=True)
    print(write("teachers", {"summary": summary(found), "measured": found, "predicted": predicted()}))


if __name__ == "__main__":
    alone(**json.loads(sys.argv[1])) if len(sys.argv) > 1 else main()
