"""G1, and every path that only a GPU takes, on one GPU: `.venv/bin/python benchmarks/gpu_smoke.py`.

Random Qwen3 weights (0.6B as student, 1.7B as teacher), so that no hub is needed. Each check stands alone: it prints
what it found, or the line that it failed with, and the next one runs. `--accelerator cpu --student tiny --teacher tiny`
runs the script itself where there is no GPU. What it finds is written to `results/gpu_smoke.json`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from gopd_callbacks import Rollout, Speed
from gpu_models import SHAPES, prompts, qwen3
from lightning.pytorch import Callback, Trainer
from models import CACHE
from side_by_side import RESULTS, row
from torch import Tensor

from gopd_lightning import FSDP2, GOPD, PromptData
from gopd_lightning.data import SourceSpec
from gopd_lightning.logprobs import Head, States
from gopd_lightning.losses import divergence_loss, logprob_loss
from gopd_lightning.machine import Stopwatch, rates
from gopd_lightning.models import ModelSpec, StudentSpec, TeacherSpec
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.models.loading import load_causal_lm
from gopd_lightning.rollouts import Sampling, TransformersEngine, Vocabulary

HEAD = {"cuda": (4096, 1024, 151936), "cpu": (64, 32, 512)}  # tokens, hidden size, ids
ROWS = {"cuda": (32, 128, 512), "cpu": (4, 8, 8)}  # rows, prompt and response tokens of scoring and fits
STEPS = 4
GOALS = {"speed/train_mfu": 0.35, "speed/score_mfu": 0.5, "speed/of_limit": 0.3}  # G1
Figures = dict[str, float]


class Smoke:
    """The checks; each gives its figures or raises.

    Args:
        device: Where they run.
        student: Shape of the student.
        teacher: Shape of the teacher.
    """

    def __init__(self, device: torch.device, student: str, teacher: str) -> None:
        self.device = device
        self.student, self.teacher = student, teacher

    def head(self) -> Figures:
        """K1: log-probs with gradient, against all logits at once."""
        states, ids = self._states(1)
        weights = torch.full((len(ids),), 1 / len(ids), device=self.device)

        def ours() -> Tensor:
            return logprob_loss(states, ids, weights, lambda logprobs, rows: logprobs).total

        def eager() -> Tensor:
            log_p = states.head.logits(states.hidden).log_softmax(-1)
            return (log_p.gather(-1, ids[:, None]).squeeze(-1) * weights).sum()

        return self._against(states, ours, eager)

    def divergence(self) -> Figures:
        """K2: KL to the target of lambda 1.25 with three models, against all logits at once."""
        (student, ids), (teacher, _), (reference, _) = (self._states(seed) for seed in (1, 2, 3))
        weights = torch.full((len(ids),), 1 / len(ids), device=self.device)

        def ours() -> Tensor:
            return divergence_loss(student, teacher, reference, 1.25, ids, weights).total

        def eager() -> Tensor:
            s, t, r = (each.head.logits(each.hidden) for each in (student, teacher, reference))
            log_s, log_q = s.log_softmax(-1), torch.lerp(r.detach(), t.detach(), 1.25).log_softmax(-1)
            return ((log_s.exp() * (log_s - log_q)).sum(-1) * weights).sum()

        return self._against(student, ours, eager)

    def scoring(self) -> Figures:
        """S1: a frozen bfloat16 model, its log-probs against float32's, its share of the matrix rate."""
        rows, prompt, response = ROWS[self.device.type]
        ids = torch.randint(1, SHAPES[self.teacher][-1], (rows, prompt + response)).tolist()
        work = [each[:prompt] for each in ids], [each[prompt:] for each in ids]
        flat = torch.tensor([x for each in work[1] for x in each], device=self.device)
        found = {}
        for dtype in ("float32", "bfloat16"):
            spec = ModelSpec(path=str(qwen3(self.teacher, "teacher", 2)), dtype=dtype)
            bank = FrozenBank({"teacher": spec}, SHAPES[self.teacher][-1], self.device)
            score = partial(self._scored, bank, work, flat)
            score()
            found[dtype] = score(), self._seconds(score)
            del bank
        error = (found["float32"][0] - found["bfloat16"][0]).abs().mean()
        rate = rates(self.device, torch.bfloat16).flops
        share = 2 * self._parameters(self.teacher) * len(flat) * (1 + prompt / response) / found["bfloat16"][1] / rate
        assert error < 0.1, f"bfloat16 log-probs are {float(error):.3f} nats from float32's"
        return {"bfloat16_error": float(error), "share_of_matrix_rate": share}

    def rollout(self) -> Figures:
        """Sampling with the engine in process: what it says of its tokens is what scoring says."""
        rows, prompt, response = ROWS[self.device.type]
        model = load_causal_lm(ModelSpec(path=str(qwen3(self.student, "student", 1)))).to(self.device)
        words = SHAPES[self.student][-1]
        bank = FrozenBank({"same": ModelSpec(path=str(qwen3(self.student, "student", 1)))}, words, self.device)
        asked = torch.randint(1, words, (rows, prompt)).tolist()
        engine = TransformersEngine()
        engine.sync(model, 0)
        began = time.perf_counter()
        out = engine.generate(
            asked, Sampling(max_new_tokens=response), range(rows), Vocabulary(size=words, stop_ids=(0,))
        )
        seconds = time.perf_counter() - began
        flat = torch.tensor([x for each in out for x in each.ids], device=self.device)
        scored = self._scored(bank, (asked, [each.ids for each in out]), flat).cpu()
        gap = (scored - torch.tensor([x for each in out for x in each.logprobs or ()])).abs().mean()
        assert gap < 1e-2, f"the engine's log-probs are {float(gap):.4f} nats from the scorer's"
        return {"gap": float(gap), "tokens_per_s": len(flat) / seconds}

    def fit(self) -> Figures:
        """E1: steps of full-vocabulary distillation in bfloat16, with what `Speed` says of them."""
        return self._fit()

    def offloaded(self) -> Figures:
        """The same with teacher and reference taking turns on the device: equal losses."""
        kept = self._fit(reward_scale=1.25)["train/loss"]
        away = self._fit(reward_scale=1.25, max_loaded_models=1)["train/loss"]
        assert abs(away - kept) <= 1e-3 * abs(kept), (
            f"the last loss is {away}, and {kept} with all models on the device"
        )
        return {"loss_kept": kept, "loss_offloaded": away}

    def sharded(self) -> Figures:
        """The same under FSDP2 on one rank, float32 master weights and bfloat16 compute."""
        return self._fit(strategy=FSDP2(compute_dtype="bfloat16"), precision="32-true")

    def vllm(self) -> Figures:
        """Steps with vLLM in process, which sleeps around each update: its gap stays small."""
        from gopd_lightning.rollouts import VLLMEngine

        figures = self._fit(engine=VLLMEngine(max_model_len=1024))
        assert figures["engine_gap/words"] < 0.1, f"the gap is {figures['engine_gap/words']:.3f} nats"
        return figures

    def _fit(self, engine: Any = None, strategy: Any = "auto", precision: str = "bf16-mixed", **model: Any) -> Figures:
        rows, prompt, response = ROWS[self.device.type]
        student = str(qwen3(self.student, "student", 1))
        module = GOPD(
            student=StudentSpec(path=student),
            teachers=[TeacherSpec(domain="words", path=str(qwen3(self.teacher, "teacher", 2)), dtype="bfloat16")],
            estimator="full",
            optimizer=partial(torch.optim.AdamW, lr=1e-6, fused=True),
            **({"reference": ModelSpec(path=student, dtype="bfloat16")} if "reward_scale" in model else {}),
            **model,
        )
        source = SourceSpec(path=str(prompts(self.student, rows, prompt)), domain="words")
        seen = Seen()
        trainer = Trainer(
            accelerator="gpu" if self.device.type == "cuda" else "cpu",
            devices=1,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
            max_steps=STEPS,
            callbacks=[Rollout(engine=engine, sampling=Sampling(max_new_tokens=response)), Speed(), seen],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=CACHE,
        )
        trainer.fit(module, PromptData(train=[source], prompts_per_step=rows, max_prompt_tokens=prompt))
        shown = ("speed/", "engine_gap", "train/loss")
        return {key: value for key, value in seen.steps[-1].items() if key.startswith(shown)}

    def _states(self, seed: int) -> tuple[States, Tensor]:
        tokens, hidden, words = HEAD[self.device.type]
        generator = torch.Generator().manual_seed(seed)
        state = torch.randn(tokens, hidden, generator=generator).to(self.device, torch.bfloat16)
        weight = (0.05 * torch.randn(words, hidden, generator=generator)).to(self.device, torch.bfloat16)
        ids = torch.randint(words, (tokens,), generator=generator).to(self.device)
        return States(state.requires_grad_(), Head(weight.requires_grad_())), ids

    def _against(self, states: States, ours: Callable[[], Tensor], eager: Callable[[], Tensor]) -> Figures:
        """Time and peak memory of both, and the error of the gradient between them."""
        found = {}
        for name, way in (("ours", ours), ("eager", eager)):
            self._both_ways(states, way)
            before = self._peak(reset=True)
            seconds = self._seconds(partial(self._both_ways, states, way))
            found[name] = seconds, self._peak() - before, self._both_ways(states, way)
        error = (found["ours"][2] - found["eager"][2]).norm() / found["eager"][2].norm()
        assert error < 0.02, f"the gradient is {float(error):.3f} from eager's"
        share = found["ours"][1] / found["eager"][1] if found["eager"][1] else float("nan")
        return {"error": float(error), "times_eager": found["ours"][0] / found["eager"][0], "memory_share": share}

    def _both_ways(self, states: States, way: Callable[[], Tensor]) -> Tensor:
        states.hidden.grad = states.head.weight.grad = None
        way().backward()
        assert states.hidden.grad is not None
        return states.hidden.grad.float()

    def _peak(self, reset: bool = False) -> int:
        if self.device.type != "cuda":
            return 0
        if reset:
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        return torch.cuda.max_memory_allocated(self.device)

    def _seconds(self, way: Callable[[], object]) -> float:
        watch = Stopwatch(self.device)
        with watch:
            for _ in range(3):
                way()
        return watch.seconds() / 3

    def _scored(self, bank: FrozenBank, work: Any, flat: Tensor) -> Tensor:
        return bank.score(next(iter(bank.forwards)), *work).logprobs_of(flat)

    def _parameters(self, shape: str) -> int:
        hidden, inner, layers, heads, shared, size, words = SHAPES[shape]
        return layers * hidden * (3 * inner + size * (2 * heads + 2 * shared)) + words * hidden


class Seen(Callback):
    """Keeps the figures of every step."""

    def __init__(self) -> None:
        self.steps: list[Figures] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Take what was logged."""
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


CHECKS = ("head", "divergence", "scoring", "rollout", "fit", "offloaded", "sharded", "vllm")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checks", nargs="*", help=f"of {', '.join(CHECKS)}; all when none is named")
    parser.add_argument("--accelerator", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--student", default="0.6B", choices=tuple(SHAPES))
    parser.add_argument("--teacher", default="1.7B", choices=tuple(SHAPES))
    asked = parser.parse_args()
    if asked.accelerator == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA GPU here: give --accelerator cpu --student tiny --teacher tiny to try the script itself")
    smoke, found, failed = Smoke(torch.device(asked.accelerator), asked.student, asked.teacher), {}, 0
    for name in asked.checks or CHECKS:
        try:
            found[name] = getattr(smoke, name)()
            print(f"{name}: {json.dumps({key: round(value, 5) for key, value in found[name].items()})}", flush=True)
        except Exception as error:  # each check stands alone
            failed += 1
            found[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            print(f"{name} FAILED: {found[name]['error']}", flush=True)
    figures = found.get("fit", {})
    rows = [row("G1", key, figures[key], "share", f">= {goal}") for key, goal in GOALS.items() if key in figures]
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"gpu_smoke{'' if asked.accelerator == 'cuda' else '_on_cpu'}.json"
    file.write_text(json.dumps({"summary": rows, "checks": found}, indent=1) + "\n")
    print(file)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
