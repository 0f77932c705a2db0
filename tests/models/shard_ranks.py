"""On each of two gloo ranks: load models into shards, run them, and leave what was seen in FOLDER/rank<n>.pt.

    torchrun --nproc-per-node 2 shard_ranks.py FOLDER

FOLDER holds the models that `test_shards` makes.
"""

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
import torch
from test_scoring import PROMPTS, RESPONSES
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from gopd_lightning import FSDP2
from gopd_lightning.models import scoring
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.models.loading import load_student
from gopd_lightning.models.specs import ModelSpec, StudentSpec

IDS = torch.arange(2, 22)[None]
STREAMED = ("one_file", "many_bfloat16_files", "untied", "head_twice")
WHOLE = ("pickled", "other_names", "head_differs")


class Ranks(FSDP2):
    """The strategy without a Trainer: its mesh over all ranks."""

    root_device = torch.device("cpu")

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._mesh = init_device_mesh("cpu", (1, distributed.get_world_size()), mesh_dim_names=("replicate", "shard"))


def run(model: Any) -> dict[str, Any]:
    """What a sharded student computes, and what this rank holds of it."""
    logits = model(IDS).logits
    logits.square().mean().backward()
    own = list(model.parameters())
    return {
        "logits": logits.detach(),
        "gradients": {name: whole(p.grad) for name, p in model.named_parameters()},
        "held": sum(p.to_local().numel() for p in own) / sum(p.numel() for p in own),
        "one_head": model.lm_head.weight is model.model.embed_tokens.weight,
        "tokens_at_the_end": model.generation_config.eos_token_id,
        "dropout": sum(getattr(module, "attention_dropout", 0.0) for module in model.modules()),
        "recomputes": model.is_gradient_checkpointing,
    }


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def students(folder: Path) -> dict[str, Any]:
    """Every folder as a student; transformers may read the weights of those alone that no shard can be read from."""
    found = {}
    for name in STREAMED:
        with mock.patch.object(AutoModelForCausalLM, "from_pretrained", None):
            found[name] = run(load_student(StudentSpec(path=str(folder / name)), Ranks().place))
    spec = StudentSpec(path=str(folder / "pickled"), gradient_checkpointing=True)
    found["pickled"] = run(load_student(spec, Ranks().place))
    for name in WHOLE[1:]:
        found[name] = run(load_student(StudentSpec(path=str(folder / name)), Ranks().place))
    compiled = load_student(StudentSpec(path=str(folder / "one_file")), Ranks(compile=True).place)
    return found | {"compiled": run(compiled)}


def frozen(folder: Path) -> dict[str, Any]:
    """Scores of this rank's rows under two models of which one is loaded at a time, and what is left in memory."""
    scoring.PADDED_TOKENS["cpu"] = 6  # a lot for every row: ranks with more rows run more forwards
    specs = {name: ModelSpec(path=str(folder / name)) for name in ("one_file", "untied")}
    size, own = len(tiny.tokenizer()), slice(0, 1 + 2 * distributed.get_rank())
    bank = FrozenBank(specs, size, torch.device("cpu"), max_loaded=1, place=Ranks().place_frozen)
    ids = torch.tensor([i for response in RESPONSES[own] for i in response])
    found: dict[str, Any] = {}
    for name in (*specs, "one_file"):
        found[name] = bank.score(name, PROMPTS[own], RESPONSES[own]).logprobs_of(ids)
        with bank.using(name) as model:
            found["held"] = sum(whole_bytes(p) for p in model.parameters()) / sum(p.numel() for p in model.parameters())
    return found


def whole_bytes(parameter: torch.Tensor) -> int:
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()


def main() -> None:
    folder = Path(sys.argv[1])
    distributed.init_process_group("gloo")
    found = {"students": students(folder), "frozen": frozen(folder)}
    torch.save(found, folder / f"rank{distributed.get_rank()}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
