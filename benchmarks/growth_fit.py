"""Fits of `growth.py` on one or more ranks: steps of given rows and lengths on a small random model, timed.

growth_fit.py '{"ranks": 1, "shapes": [{"rows": 8, "length": 64}, ...]}'        (under torchrun for more ranks)
"""

import json
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gopd_callbacks import Rollout
from lightning.pytorch import Callback, Trainer
from models import CACHE, kept, perturb
from step_gopd import ImposedEngine
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import distributed
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from turns import tell
from workload import Workload

from gopd_lightning import GOPD, PromptData
from gopd_lightning.data import SourceSpec
from gopd_lightning.models import StudentSpec, TeacherSpec
from gopd_lightning.rollouts import Sampling

WORDS, PROMPT, STEPS = 4096, 32, 2
LAYERS, HIDDEN, INNER = 4, 576, 1536  # the layers of SmolLM2-135M, fewer of them
Shape = dict[str, int]


def model(name: str, seed: int) -> Path:
    """A random model's folder; the teacher is the student with noise."""
    return kept(CACHE / "small" / name, partial(_make, seed))


def _make(seed: int, folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=WORDS,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
    )
    made = LlamaForCausalLM(config)
    perturb(made, seed)
    made.save_pretrained(folder)
    words = Tokenizer(WordLevel({"<eos>": 0} | {f"w{i}": i for i in range(1, WORDS)}, unk_token="<eos>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>").save_pretrained(folder)


def random_work(rows: int, length: int) -> Workload:
    """Prompts of 32 random words, with random responses of one length."""
    chance = random.Random(0)
    prompts = [[chance.randrange(1, WORDS) for _ in range(PROMPT)] for _ in range(rows)]
    responses = [[*(chance.randrange(1, WORDS) for _ in range(length - 1)), 0] for _ in range(rows)]
    return Workload([" ".join(f"w{i}" for i in ids) for ids in prompts], prompts, responses, end=0)


class Clock(Callback):
    """Seconds of every step, and of summing the gradients over ranks alone."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.phases: list[dict[str, float]] = []
        self.sum_seconds: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The step begins, before its rollout."""
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The step has ended."""
        self.seconds.append(time.perf_counter() - self.began)
        self.phases.append({"generation": batch.info["rollout_s"], "update": batch.info["update_s"]})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Sum a tensor of the gradients' size over ranks, without anything beside it."""
        if trainer.world_size == 1:
            return
        gradients = torch.zeros(sum(p.numel() for p in pl_module.trainable_parameters()))
        for _ in range(STEPS + 1):
            distributed.barrier()
            began = time.perf_counter()
            distributed.all_reduce(gradients)
            self.sum_seconds.append(time.perf_counter() - began)


def fit(shape: Shape, ranks: int) -> dict[str, Any]:
    """A few steps of one shape; the fastest after the first counts, which warms up."""
    work = random_work(shape["rows"], shape["length"])
    file = CACHE / f"growth-{shape['rows']}.jsonl"
    part = file.with_suffix(f".part{ranks}")
    part.write_text("".join(json.dumps({"prompt": text, "domain": "words"}) + "\n" for text in work.texts))
    part.rename(file)
    clock = Clock()
    module = GOPD(
        student=StudentSpec(path=str(model("student", 1))),
        teachers=[TeacherSpec(domain="words", path=str(model("teacher", 2)))],
        estimator="full",
        max_engine_gap=None,  # imposed tokens keep the log-probs of those that were drawn
        optimizer=partial(torch.optim.AdamW, lr=1e-6, fused=True),
    )
    data = PromptData(
        train=[SourceSpec(path=str(file), domain="words")], prompts_per_step=shape["rows"], max_prompt_tokens=PROMPT
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=STEPS,
        callbacks=[clock, Rollout(engine=ImposedEngine(work), sampling=Sampling(max_new_tokens=shape["length"]))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=CACHE,
    )
    trainer.fit(module, data)
    best = min(range(1, STEPS), key=lambda i: clock.seconds[i])
    found = {**shape, "ranks": ranks, "tokens": work.tokens, "seconds": clock.seconds[best], **clock.phases[best]}
    return found | ({"sum_seconds": min(clock.sum_seconds)} if clock.sum_seconds else {})


def main() -> None:
    asked = json.loads(sys.argv[1])
    for name, seed in (("student", 1), ("teacher", 2)):
        model(name, seed)
    for shape in asked["shapes"]:
        found = fit(shape, asked["ranks"])
        if not distributed.is_initialized() or distributed.get_rank() == 0:
            tell(found)


if __name__ == "__main__":
    main()
