"""The gopd side of `step.py`: a fit of GOPD with the Rollout callback through Lightning's Trainer, a step a turn."""

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gopd_callbacks.rollout import Rollout
from lightning.pytorch import Callback, Trainer
from models import CACHE, smollm2
from turns import peak_mb, tell, wait
from workload import ImposedDraw, Workload, workload

from gopd_lightning import GOPD, PromptData
from gopd_lightning.data import SourceSpec
from gopd_lightning.models import ModelSpec, StudentSpec, TeacherSpec
from gopd_lightning.records import Batch, Completion, TokenIds
from gopd_lightning.rollouts import Sampling, TransformersEngine, decoding
from gopd_lightning.rollouts.engine import Done, Vocabulary

DOMAIN = "story"
MICRO_BATCH = 512  # padded tokens with gradient at a time: the activations of more are memory without speed


class ImposedEngine(TransformersEngine):
    """Gopd's engine, with its draws replaced.

    Args:
        work: What is imposed.
    """

    def __init__(self, work: Workload, **settings: Any) -> None:
        super().__init__(**settings)
        self.work = work

    def generate(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        vocabulary: Vocabulary,
        done: Done | None = None,
    ) -> list[Completion]:
        """As the engine does."""
        imposed = ImposedDraw(decoding.draw, self.work, prompts, seeds)
        with mock.patch.object(decoding, "draw", imposed):
            return super().generate(prompts, sampling, seeds, vocabulary, done)


class Turns(Callback):
    """Takes a step when it is told to, and tells what the step took.

    Args:
        work: What must be generated.
        engine: What generates it.
    """

    def __init__(self, work: Workload, engine: ImposedEngine) -> None:
        self.work = work
        self.engine = engine

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """All is loaded."""
        tell({})

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """The step begins, its rollout first: this callback stands before Rollout."""
        self.engine.work = self.work.cut(wait())
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """The step has ended."""
        seconds = time.perf_counter() - self.began
        work = self.engine.work
        wanted = {(tuple(p), tuple(r)) for p, r in zip(work.prompts, work.responses, strict=True)}
        found = {(tuple(row.prompt.ids), tuple(row.completion.ids)) for row in batch.rows}
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        tell(
            {
                "seconds": seconds,
                "generation": batch.info["rollout_s"],
                "update": batch.info["update_s"],
                "tokens": batch.info["tokens"],
                "imposed": found == wanted,
                "loss": figures["train/loss"],
                "gradient": figures["train/grad_norm"],
                "log_ratio": -figures[f"kl_teacher/{DOMAIN}"],
                "peak_mb": peak_mb(),
            }
        )


def module(settings: dict[str, Any]) -> GOPD:
    """Student, teacher and, past lambda 1, a reference."""
    dtype = "bfloat16" if settings["bf16"] else "float32"
    scale = settings["reward_scale"]
    return GOPD(
        student=StudentSpec(path=str(smollm2("student"))),
        teachers=[TeacherSpec(domain=DOMAIN, path=str(smollm2("teacher")), dtype=dtype)],
        reference=None if scale == 1.0 else ModelSpec(path=str(smollm2("reference")), dtype=dtype),
        reward_scale=scale,
        estimator=settings["estimator"],
        max_micro_batch_tokens=MICRO_BATCH,
        importance_weight_cap=None,  # imposed tokens keep the log-probs of those that were drawn
        max_engine_gap=None,
        optimizer=partial(torch.optim.AdamW, lr=1e-6, weight_decay=0.0, fused=True),
        lr_scheduler=partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0),
    )


def prompt_data(work: Workload) -> PromptData:
    """All prompts, in every step."""
    file = CACHE / f"prompts-{len(work.texts)}.jsonl"
    file.write_text("".join(json.dumps({"prompt": text, "domain": DOMAIN}) + "\n" for text in work.texts))
    source = SourceSpec(path=str(file), domain=DOMAIN)
    return PromptData(train=[source], prompts_per_step=len(work.texts), max_prompt_tokens=128)


def main(settings: dict[str, Any]) -> None:
    work = workload(settings["prompts"], settings["longest"])
    engine = ImposedEngine(work, dtype="bfloat16" if settings["bf16"] else None)
    rollout = Rollout(engine=engine, sampling=Sampling(max_new_tokens=work.longest))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        precision="bf16-mixed" if settings["bf16"] else "32-true",
        max_steps=1000,  # the other side of the pipe ends it
        callbacks=[Turns(work, engine), rollout],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=Path(CACHE),
    )
    trainer.fit(module(settings), prompt_data(work))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
