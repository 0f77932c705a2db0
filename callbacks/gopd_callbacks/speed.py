"""How fast a fit is: tokens a second by phase, padding, and how much of what the machine can do is used."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.distributed.tensor import DTensor

from gopd_lightning.cost import ADAM_BYTES, Member, Models, lengths_of, shape_of, step_work
from gopd_lightning.machine import rates
from gopd_lightning.records import Batch

SHOWN = ("speed/tokens_per_s", "speed/of_limit")  # on the progress display
PHASES = ("rollout", "score", "train")
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

Figures = dict[str, float]


class Speed(Callback):
    """Logs seconds and tokens a second of every step by phase, padding waste, MFU and fraction of the limit.

    Phases are `rollout` (sampling), `score` (the frozen models) and `train` (forward, backward, optimizer);
    `update` is the last two together. Tokens are response tokens.

    - `time/<phase>_s`, `speed/<phase>_tokens_per_s`, `speed/tokens_per_s` (of the whole step).
    - `speed/<phase>_padding_waste`: the share of token positions in the trunks that were padding.
    - `speed/<phase>_mfu`: useful FLOPs over seconds times the machine's rate; `speed/mfu` of the whole step.
    - `speed/<phase>_of_limit`: the least seconds that this machine needs over those it took; `speed/of_limit`.
    - `speed/<dtype>_tflops`, `speed/copy_gb_per_s`: what one rank's machine was measured to do, in the first row.

    `gopd_lightning.cost` says what counts. Figures are of all ranks together. Where the cost of a model is not
    known, MFU and limit are left out.
    """

    def __init__(self) -> None:
        self._models: Models | None = None
        self._machine: Figures = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the models and measure the machine."""
        trainer.strategy.barrier("before the machine is measured")
        self._models = _models_of(trainer, pl_module)
        self._machine = _machine_figures(self._models)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log the figures of the step."""
        sums = _seconds(batch) | _positions(batch)
        if self._models is not None:
            sums |= _work(self._models, pl_module, batch)
        sums = _over_ranks(trainer, sums)
        ranks = trainer.world_size
        figures = _times(sums, ranks) | _paces(sums, batch.info["tokens"], ranks) | _shares(sums)
        _log(trainer, pl_module, figures | self._machine)
        self._machine = {}


# Once a run


def _models_of(trainer: Trainer, module: Any) -> Models | None:
    """All models with the rates of their dtypes; None when the cost of one is not known."""
    autocast = _AUTOCAST.get(str(trainer.precision))
    sharded = getattr(trainer.strategy, "compute_dtype", None)  # FSDP2 casts by itself
    own = getattr(torch, sharded) if sharded else autocast or _dtype(module.student)
    student = _member(module.student, module, "student", own)
    engine = _member(module.student, module, "student", _engine_dtype(trainer) or _dtype(module.student))
    frozen = {}
    for name, spec in module.routing.specs.items():
        if spec.url is not None:  # its server's work
            continue
        with module.frozen.using(name) as model:
            frozen[name] = _member(model, module, name, autocast or _dtype(model))
    known = {name: member for name, member in frozen.items() if member is not None}
    if student is None or engine is None or len(known) < len(frozen):
        return None
    return Models(student, engine, known, ADAM_BYTES * sum(map(_on_this_rank, module.trainable_parameters())))


def _member(model: nn.Module, module: Any, name: str, dtype: torch.dtype) -> Member | None:
    """A model, and what the machine does in its dtype."""
    shape = shape_of(model, module.vocabulary.size)
    if shape is None:
        rank_zero_info(f"Speed: the cost of {name} is not known by its shapes: MFU and limit are left out")
        return None
    return Member(shape, dtype, rates(module.device, dtype))


def _engine_dtype(trainer: Trainer) -> torch.dtype | None:
    """The dtype that the rollout engine samples in where it has one of its own."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    engines = [callback.engine for callback in callbacks if hasattr(callback, "engine")]
    return getattr(engines[0], "dtype", None) if engines else None


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def _on_this_rank(parameter: nn.Parameter) -> int:
    """Weights of a parameter that this rank's optimizer updates."""
    tensor = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return tensor.numel()


def _machine_figures(models: Models | None) -> Figures:
    """What was measured, for the first row."""
    if models is None:
        return {}
    members = [models.student, models.engine, *models.frozen.values()]
    figures = {f"speed/{str(m.dtype).removeprefix('torch.')}_tflops": m.rates.flops / 1e12 for m in members}
    return figures | {"speed/copy_gb_per_s": models.student.rates.bytes / 1e9}


# Every step: sums that may be added over ranks, then the figures


def _seconds(batch: Batch) -> Figures:
    """Seconds of the phases; what is not scoring in the update is training."""
    info = batch.info
    frozen = any(scored.model != "student" for scored in info["scored"])
    score = info["score_s"] if frozen else 0.0  # without frozen models, no phase
    return {
        "rollout_s": info.get("rollout_s", 0.0),
        "verify_s": info.get("verify_s", 0.0),
        "score_s": score,
        "train_s": info["update_s"] - score,
    }


def _positions(batch: Batch) -> Figures:
    """Token positions that went through the trunks, with padding and without."""
    sums = dict.fromkeys(("score_real", "score_padded", "train_real", "train_padded"), 0.0)
    for scored in batch.info["scored"]:
        phase = "train" if scored.model == "student" else "score"
        sums[f"{phase}_real"] += scored.real
        sums[f"{phase}_padded"] += scored.padded
    return sums


def _work(models: Models, module: Any, batch: Batch) -> Figures:
    """The least seconds of the phases on this rank: by FLOPs alone, and with bytes."""
    rows = {"student": lengths_of(batch.rows)}
    for name in models.frozen:
        asked = {d for d, route in module.routing.routes.items() if name in route.models}
        rows[name] = lengths_of([row for row in batch.rows if row.prompt.domain in asked], name)
    heads = any(scored.head for scored in batch.info["scored"])
    found = step_work(models, rows, "rollout_s" in batch.info, heads)
    matmul = {f"{phase}_matmul": work.matmul_s for phase, work in found.items()}
    return matmul | {f"{phase}_limit": work.limit_s for phase, work in found.items()}


def _over_ranks(trainer: Trainer, sums: Figures) -> Figures:
    """The sums of all ranks, in one collective."""
    if trainer.world_size == 1:
        return sums
    values = torch.tensor(list(sums.values()), device=trainer.strategy.root_device)
    total = trainer.strategy.reduce(values, reduce_op="sum")
    return dict(zip(sums, total.tolist(), strict=True))


def _times(sums: Figures, ranks: int) -> Figures:
    """Seconds of the phases that there were, the mean of the ranks."""
    seconds = {"time/update_s": (sums["score_s"] + sums["train_s"]) / ranks}
    names = [f"{phase}_s" for phase in PHASES if sums[f"{phase}_s"]]
    names += ["verify_s"] if sums["rollout_s"] else []
    return seconds | {f"time/{name}": sums[name] / ranks for name in names}


def _paces(sums: Figures, tokens: int, ranks: int) -> Figures:
    """Response tokens a second, of all ranks together."""
    update = sums["score_s"] + sums["train_s"]
    seconds = {f"{phase}_": sums[f"{phase}_s"] for phase in PHASES}
    seconds |= {"update_": update, "": update + sums["rollout_s"] + sums["verify_s"]}
    return {f"speed/{name}tokens_per_s": tokens * ranks / spent for name, spent in seconds.items() if spent}


def _shares(sums: Figures) -> Figures:
    """Padding waste, MFU and fraction of the limit."""
    figures = {}
    for phase in ("score", "train"):
        if padded := sums[f"{phase}_padded"]:
            figures[f"speed/{phase}_padding_waste"] = 1 - sums[f"{phase}_real"] / padded
    if "train_limit" not in sums:
        return figures
    step = sum(sums[f"{phase}_s"] for phase in (*PHASES, "verify"))
    for kind, name in (("matmul", "mfu"), ("limit", "of_limit")):
        for phase in PHASES:
            if spent := sums[f"{phase}_s"]:
                figures[f"speed/{phase}_{name}"] = sums[f"{phase}_{kind}"] / spent
        figures[f"speed/{name}"] = sum(sums[f"{phase}_{kind}"] for phase in PHASES) / step
    return figures


def _log(trainer: Any, module: LightningModule, figures: Figures) -> None:
    """Log what is displayed through Lightning, and the rest past it: a tenth of the time for each name."""
    module.log_dict({name: figures[name] for name in SHOWN if name in figures}, batch_size=1)
    if not trainer._logger_connector.should_update_logs:
        return
    rest = {name: value for name, value in figures.items() if name not in SHOWN}
    for logger in trainer.loggers:
        logger.log_metrics(rest, step=trainer.fit_loop.epoch_loop._batches_that_stepped)
