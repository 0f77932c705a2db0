"""One small fit on tiny models, in this process or under torchrun; leaves gradients, weights and metrics in a file.

    python tiny_fit.py FOLDER '{"model": {...}, "trainer": {...}}'

FOLDER must hold what `prepare` makes. The result is FOLDER/<name>.pt: gradients of every step (summed over ranks as
the optimizer sees them), final weights, logged figures, and the rows' scores.
"""

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Any

import tiny
import torch
from gopd_callbacks.rollout import Rollout
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import distributed
from torch.distributed.tensor import DTensor

from gopd_lightning import FSDP2, GOPD, PromptData
from gopd_lightning.data import SourceSpec
from gopd_lightning.metrics_file import MetricsFile
from gopd_lightning.models import StudentSpec, TeacherSpec
from gopd_lightning.rollouts import Sampling
from gopd_lightning.verifiers import ExactMatch


class Record(Callback):
    """Keeps what the optimizer sees and what was logged."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.gradients: list[torch.Tensor] = []
        self.figures: list[dict[str, float]] = []
        self.scores: dict[tuple[int, int], dict[str, torch.Tensor]] = {}
        self.kill_at = kill_at

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.gradients.append(torch.cat([full(p.grad).flatten() for p in pl_module.trainable_parameters()]))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        timed = ("speed", "time")
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.startswith(timed)}
        self.figures.append(figures)
        for row in batch.rows:
            self.scores[trainer.global_step, row.prompt.uid] = row.scores
        if self.kill_at == trainer.global_step:
            import signal

            os.kill(os.getpid(), signal.SIGKILL)


def full(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def prepare(folder: Path) -> None:
    """Models and prompts of the tiny merge: a base, two teachers, two domains."""
    for name, seed in (("base", 0), ("math", 1), ("code", 2)):
        tiny.model(folder / name, seed=seed)
    tiny.prompts(folder / "math.jsonl", "math", 24)
    tiny.prompts(folder / "code.jsonl", "code", 24, start=100)


def build(folder: Path, **model: Any) -> GOPD:
    """The module of the tiny merge; `domains` picks teachers, `sgd` is a learning rate of plain descent.

    Adam's first step is the sign of the gradient, which makes a rounding error of a tiny gradient as large as a real
    one: what must agree to the last digits over several steps takes plain descent.
    """
    domains = model.pop("domains", ("math", "code"))
    if rate := model.pop("sgd", None):
        model["optimizer"] = lambda params: torch.optim.SGD(params, lr=rate)
    settings: dict[str, Any] = {
        "student": StudentSpec(path=str(folder / "base")),
        "teachers": [TeacherSpec(domain=d, path=str(folder / d)) for d in domains],
        "reference": "student_init",
        "reward_scale": 1.25,
        "optimizer": lambda params: torch.optim.AdamW(params, lr=1e-2),
    }
    return GOPD(**(settings | model))


def data(folder: Path, domains: tuple[str, ...] = ("math", "code"), prompts_per_step: int = 8) -> PromptData:
    """Its prompts, the same files for training and validation."""
    sources = [SourceSpec(path=str(folder / f"{d}.jsonl"), domain=d) for d in domains]
    return PromptData(train=sources, val=sources, prompts_per_step=prompts_per_step, max_prompt_tokens=16)


def fit(
    folder: Path,
    module: GOPD,
    *,
    run: str = "run",
    resume: bool = False,
    kill_at: int | None = None,
    prompts: PromptData | None = None,
    callbacks: tuple[Callback, ...] = (),
    rollout: Callback | None = None,
    **trainer: Any,
) -> dict[str, Any]:
    """Fit, and give back what happened."""
    record = Record(kill_at)
    sampling = Sampling(n=1, max_new_tokens=10)
    verifiers = {"math": ExactMatch(), "code": ExactMatch()}
    settings: dict[str, Any] = {
        "max_steps": 2,
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": folder / run,
        "logger": MetricsFile(str(folder / run)),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
        "limit_val_batches": 0,
        "enable_checkpointing": False,
    } | trainer
    if settings["enable_checkpointing"]:
        every = settings.pop("checkpoint_every", 2)
        callbacks += (ModelCheckpoint(every_n_train_steps=every, save_last=True, save_top_k=1),)
    sampler = rollout or Rollout(sampling=sampling, verifiers=verifiers)
    engine = Trainer(callbacks=[sampler, *callbacks, record], **settings)
    engine.fit(module, prompts or data(folder), ckpt_path="last" if resume else None)
    weights = {k: full(v) for k, v in module.student.state_dict().items()}
    return {
        "gradients": record.gradients,
        "figures": record.figures,
        "scores": record.scores,
        "weights": weights,
        "module": module,
        "trainer": engine,
    }


def strategy_of(name: str) -> Any:
    """auto and ddp are Lightning's; the others ours."""
    made = {"fsdp2": FSDP2, "hybrid": lambda: FSDP2(replicas=2), "fsdp2_one_file": one_file}
    return made[name]() if name in made else name


def one_file() -> FSDP2:
    return FSDP2(save_distributed_checkpoint=False)


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    # registered first, it runs last: whether the process group was ended before the interpreter
    ended = folder / f"{settings['out']}.ended.{os.environ.get('RANK', 0)}"
    atexit.register(lambda: ended.write_text(str(not distributed.is_initialized())))
    trainer = settings.get("trainer", {})
    trainer["strategy"] = strategy_of(trainer.get("strategy", "auto"))
    out = fit(folder, build(folder, **settings.get("model", {})), **settings.get("fit", {}), **trainer)
    keep = {k: out[k] for k in ("gradients", "figures", "scores", "weights")}
    if out["trainer"].is_global_zero:
        torch.save(keep, folder / settings["out"])


if __name__ == "__main__":
    main()
