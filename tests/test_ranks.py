"""Two ranks against one: the same gradients, losses and weights, whatever the strategy; exact resume."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_fit
import torch
import yaml
from transformers import AutoModelForCausalLM

from gopd_lightning.export import export_run

HERE = Path(__file__).parent


def torchrun(folder: Path, ranks: int = 2, check: bool = True, **settings: Any) -> dict[str, Any] | None:
    """Run `tiny_fit` on several gloo ranks and load what it left."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += [str(HERE / "tiny_fit.py"), str(folder), json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    if not check:
        return None
    assert done.returncode == 0, done.stderr[-3000:]
    ended = [(folder / f"{settings['out']}.ended.{rank}").read_text() for rank in range(ranks)]
    assert ended == ["True"] * ranks, "a rank left its process group to the interpreter's end"
    return torch.load(folder / settings["out"], weights_only=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("ranks")
    tiny_fit.prepare(found)
    return found


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize(
    ("strategy", "estimator", "aggregation"),
    [("ddp", "sampled", "sequence_mean"), ("fsdp2", "full", "token_mean"), ("fsdp2", "sampled", "sequence_mean")],
)
def test_two_ranks_have_the_gradient_of_one(folder, strategy, estimator, aggregation):
    model = {"estimator": estimator, "loss_aggregation": aggregation, "max_micro_batch_tokens": 60, "sgd": 0.01}
    one = tiny_fit.fit(folder, tiny_fit.build(folder, **model), max_steps=2)
    name = f"{strategy}-{estimator}"
    two = torchrun(
        folder,
        model=model,
        trainer={"strategy": strategy, "devices": 2, "max_steps": 2},
        fit={"run": name},
        out=f"{name}.pt",
    )
    for a, b in zip(two["gradients"], one["gradients"], strict=True):
        assert relative(a, b) < 1e-6
    for a, b in zip(two["figures"], one["figures"], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=1e-4, abs=1e-6), key
    for key, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][key], value, atol=1e-6, rtol=1e-4)


def test_hybrid_sharding_equals_flat(folder):
    settings = {"trainer": {"strategy": "hybrid", "devices": 4, "max_steps": 1}, "fit": {"run": "hybrid"}}
    four = torchrun(folder, ranks=4, out="hybrid.pt", **settings)
    one = tiny_fit.fit(folder, tiny_fit.build(folder), max_steps=1)
    assert relative(four["gradients"][0], one["gradients"][0]) < 1e-6


def six_steps(strategy: str, ranks: int) -> dict[str, Any]:
    """Settings of the trainer, with a checkpoint every other step."""
    return {
        "strategy": strategy,
        "devices": ranks,
        "max_steps": 6,
        "enable_checkpointing": True,
        "checkpoint_every": 2,
    }


@pytest.fixture(scope="module")
def killed(folder):
    """By strategy: leaves a run of two ranks that was killed after step 5, and gives what an undisturbed one does."""

    @cache
    def make(strategy: str) -> dict[str, Any] | None:
        trainer = six_steps(strategy, 2)
        torchrun(folder, check=False, trainer=trainer, fit={"run": f"{strategy}-killed", "kill_at": 5}, out="none.pt")
        return torchrun(folder, trainer=trainer, fit={"run": f"{strategy}-whole"}, out=f"{strategy}-whole.pt")

    return make


def resume(folder: Path, strategy: str, ranks: int) -> tuple[str, dict[str, Any] | None]:
    """Go on with a copy of the killed run; gives its name too."""
    run = f"{strategy}-on-{ranks}"
    shutil.copytree(folder / f"{strategy}-killed", folder / run)
    fit = {"run": run, "resume": True}
    return run, torchrun(folder, ranks=ranks, trainer=six_steps(strategy, ranks), fit=fit, out=f"{run}.pt")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_ranks_resume_bit_for_bit_after_sigkill(folder, killed, strategy):
    whole = killed(strategy)
    run, resumed = resume(folder, strategy, ranks=2)
    assert len(resumed["figures"]) == 2
    for key, value in whole["weights"].items():
        assert torch.equal(resumed["weights"][key], value), key
    assert resumed["figures"] == whole["figures"][-2:]
    ours, theirs = ((folder / name / "metrics.csv").read_text().splitlines() for name in (run, f"{strategy}-whole"))
    assert len(ours) == len(theirs) == 7


@pytest.mark.parametrize("ranks", [1, 4])
def test_a_sharded_run_goes_on_with_another_number_of_ranks(folder, killed, ranks):
    whole = killed("fsdp2")
    _, resumed = resume(folder, "fsdp2", ranks)
    for ours, theirs in zip(resumed["figures"], whole["figures"][-2:], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    for key, value in whole["weights"].items():
        torch.testing.assert_close(resumed["weights"][key], value, atol=1e-5, rtol=1e-4)


def test_a_sharded_run_from_the_command_line_validates_tests_and_exports(tmp_path):
    root = HERE.parent
    config = yaml.safe_load((root / "configs" / "multi_teacher_merge.yaml").read_text())
    for split in ("val", "test"):
        for source, limit in zip(config["data"]["init_args"][split], (7, 4), strict=True):  # uneven over ranks
            source["limit"] = limit
    config["data"]["init_args"]["prompts_per_step"] = 8
    config["trainer"] |= {"max_steps": 2, "val_check_interval": 1, "default_root_dir": str(tmp_path / "run")}
    config["trainer"] |= {"strategy": "fsdp2", "devices": 2}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "gopd_lightning", "fit", "--config", str(tmp_path / "two.yaml")]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {name: entry["n"] for name, entry in results["student"].items()} == {"math": 7, "code": 4}
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3
    export_run(str(tmp_path / "run"), str(tmp_path / "out"))
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (tmp_path / "out", tmp_path / "run" / "student")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_ranks_evaluate_as_one(tmp_path):
    files = {"math": 37, "code": 1}  # uneven over ranks, and one rank without any program
    sources = [
        {"path": f"assets/nano/data/{d}_test.jsonl", "domain": d, "name": d, "limit": n} for d, n in files.items()
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    found, sums = [], []
    for ranks in (1, 2):
        place = ("--trainer.default_root_dir", str(tmp_path / str(ranks)), "--data.test", json.dumps(sources))
        size = ("--data.eval_batch_size", "10", "--trainer.devices", str(ranks), "--trainer.strategy", "ddp")
        command = [sys.executable, "-m", "gopd_lightning", "test", "--config", "configs/eval/nano.yaml", *place, *size]
        done = subprocess.run(
            command, env=environment, cwd=HERE.parent, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (summary,) = (tmp_path / str(ranks)).glob("base-*/summary.json")
        rows = [json.loads(line) for d in files for line in (summary.parent / f"{d}.jsonl").read_text().splitlines()]
        assert sorted(file.name for file in summary.parent.iterdir()) == ["code.jsonl", "math.jsonl", "summary.json"]
        sets = json.loads(summary.read_text())["sets"]
        surprisal = {d: sets[d]["figures"].pop("surprisal")["mean"] for d in files}
        logprobs = [row.pop("logprob") for row in rows]
        found.append((sets, [row | {"seconds": None} for row in rows]))
        sums.append((surprisal, logprobs))
    assert found[0] == found[1]
    for one, other in zip(*sums, strict=True):  # sums of float32, whose rounding depends on a batch's other rows
        assert one == pytest.approx(other, abs=1e-4)
