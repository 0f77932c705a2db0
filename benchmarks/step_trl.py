"""The TRL side of `step.py`: DistillationTrainer or IWOPDTrainer on transformers' `generate`, a step a turn."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from models import CACHE, smollm2
from transformers import AutoTokenizer, GenerationMixin, TrainerCallback
from trl import DistillationConfig, DistillationTrainer
from trl.experimental.iw_opd import IWOPDConfig, IWOPDTrainer
from turns import peak_mb, tell, wait
from workload import ImposedTokens, Workload, workload


class Generation:
    """Takes the place of `generate` of all models: imposes the tokens and measures the seconds.

    Args:
        work: What is imposed.
    """

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.seconds = 0.0
        self.imposed = True
        self._generate = GenerationMixin.generate
        GenerationMixin.generate = lambda model, *args, **kwargs: self(model, *args, **kwargs)

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Generate as transformers does."""
        began = time.perf_counter()
        processor = ImposedTokens(self.work, kwargs["input_ids"], kwargs["attention_mask"])
        out = self._generate(model, *args, **kwargs, logits_processor=[processor])
        self.seconds += time.perf_counter() - began
        ids = getattr(out, "sequences", out)[:, processor.start :]
        self.imposed &= bool((ids == processor.tokens[:, : ids.shape[1]]).all())
        return out


class Turns(TrainerCallback):  # type: ignore[misc]
    """Takes a step when it is told to, and tells what the step took.

    Args:
        work: What must be generated.
        generation: What generates it.
        log_ratios: Sums over micro-batches, of a trainer that has them.
    """

    def __init__(self, work: Workload, generation: Generation, log_ratios: list[float]) -> None:
        self.work = work
        self.generation = generation
        self.log_ratios = log_ratios

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All is loaded."""
        tell({})

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step begins; it generates in its first micro-batch."""
        self.generation.work = self.work.cut(wait())
        self.generation.seconds, self.generation.imposed = 0.0, True
        self.log_ratios.clear()
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimizer has stepped; its figures come with the log."""
        self.seconds = time.perf_counter() - self.began

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        """The figures of the step."""
        tell(
            {
                "seconds": self.seconds,
                "generation": self.generation.seconds,
                "update": self.seconds - self.generation.seconds,
                "tokens": self.generation.work.tokens,
                "imposed": self.generation.imposed,
                "loss": logs["loss"],
                "gradient": logs["grad_norm"],
                "log_ratio": sum(self.log_ratios) / self.generation.work.tokens,
                "peak_mb": peak_mb(),
            }
        )


class Weighted(IWOPDTrainer):  # type: ignore[misc]
    """IWOPDTrainer that notes the sum of its log-ratios: what it logs is a mean of the means of micro-batches."""

    log_ratios: list[float]

    def _compute_iw_opd_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super()._compute_iw_opd_loss(*args, **kwargs)
        mean = self._metrics["train"]["iw_opd/mean_advantage"][-1]
        self.log_ratios.append(mean * int((kwargs["labels"] != -100).sum()))
        return loss


def common(settings: dict[str, Any], work: Workload) -> dict[str, Any]:
    """Arguments of both trainers."""
    rows = settings["rows"]
    return {
        "output_dir": str(CACHE / "trl"),
        "temperature": 1.0,
        "top_p": 1.0,
        "use_cpu": True,
        "bf16": settings["bf16"],
        "gradient_checkpointing": False,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": len(work.texts) // rows,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_steps": 1000,  # the other side of the pipe ends it
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "teacher_model_init_kwargs": {"dtype": "bfloat16" if settings["bf16"] else "float32"},
    }


def full(settings: dict[str, Any], work: Workload) -> DistillationTrainer:
    """Reverse KL over the vocabulary."""
    config = DistillationConfig(
        **common(settings, work), beta=1.0, max_completion_length=work.longest, shuffle_dataset=False
    )
    data = Dataset.from_dict({"prompt": work.texts})
    tokenizer = AutoTokenizer.from_pretrained(smollm2("student"), padding_side="left")
    return DistillationTrainer(
        str(smollm2("student")), str(smollm2("teacher")), config, train_dataset=data, processing_class=tokenizer
    )


def sampled(settings: dict[str, Any], work: Workload) -> Weighted:
    """The log-ratio of the sampled tokens; prompts are messages, which this template passes on as they are."""
    config = IWOPDConfig(
        **common(settings, work),
        distillation_objective="iw_opd",
        iw_opd_gamma=0.0,
        lmbda=1.0,
        max_completion_length=work.longest,
        max_length=work.longest + 128,
    )
    rows = [[{"role": "user", "content": text}, {"role": "assistant", "content": "x"}] for text in work.texts]
    tokenizer = AutoTokenizer.from_pretrained(smollm2("student"), padding_side="left")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return Weighted(
        model=str(smollm2("student")),
        teacher_model=str(smollm2("teacher")),
        args=config,
        train_dataset=Dataset.from_dict({"messages": rows}),
        processing_class=tokenizer,
    )


def main(settings: dict[str, Any]) -> None:
    Path(CACHE).mkdir(parents=True, exist_ok=True)
    work = workload(settings["prompts"], settings["longest"])
    trainer = {"full": full, "sampled": sampled}[settings["estimator"]](settings, work)
    trainer.log_ratios = []
    trainer.add_callback(Turns(work, Generation(work), trainer.log_ratios))
    trainer.train()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
