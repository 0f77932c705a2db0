"""One rank of two: the nano base, sharded by FSDP2 and not, an engine on each; writes what this rank found."""

import os
import sys
from pathlib import Path

import torch
from gaps import PROMPTS, change, gap
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM

from gopd_lightning.rollouts import Sampling, Vocabulary
from gopd_lightning.rollouts.vllm_engine import VLLMEngine
from gopd_lightning.strategies import blocks


def main(folder: Path, out: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        del os.environ[name]  # under SLURM nobody sets them
    engine = VLLMEngine(max_model_len=256, kv_cache_gib=0.1)
    mine = PROMPTS[rank::2]  # every rank its own prompts, and one of them fewer
    mine = mine[: len(mine) - rank]
    gaps, ids = [], []
    for sharded in (True, False):
        plain, student = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
        for module in (*blocks(student), student) if sharded else ():
            fully_shard(module)
        for version in range(2):
            engine.sync(student, version)
            vocabulary = Vocabulary(size=plain.config.vocab_size, stop_ids=(1,))
            found = engine.generate(mine, Sampling(max_new_tokens=12), range(len(mine)), vocabulary)
            gaps.append(gap(plain, found, prompts=mine))
            ids.append([c.ids for c in found])
            change(plain)
            move(student, plain)
    torch.save({"gaps": gaps, "ids": ids}, out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def move(student: torch.nn.Module, plain: torch.nn.Module) -> None:
    """Give a sharded model the weights of a whole one."""
    with torch.no_grad():
        for own, whole in zip(student.parameters(), plain.parameters(), strict=True):
            if isinstance(own, torch.distributed.tensor.DTensor):
                own.copy_(torch.distributed.tensor.distribute_tensor(whole, own.device_mesh, own.placements))
            else:
                own.copy_(whole)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
