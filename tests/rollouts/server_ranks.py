"""One rank of two with a sharded student and the engine on a server; writes what this rank was answered."""

import sys
from pathlib import Path

import torch
from torch.distributed.fsdp import fully_shard

from gopd_lightning.rollouts import Sampling, Vocabulary
from gopd_lightning.rollouts.vllm_server import VLLMServerEngine


def main(url: str, folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    student = torch.nn.Linear(6, 4, bias=False)
    fully_shard(student, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
    engine = VLLMServerEngine([url], str(folder / "weights"))
    engine.sync(student, 3)
    found = engine.generate([[rank + 5]], Sampling(max_new_tokens=4), [0], Vocabulary(size=60, stop_ids=(1,)))
    torch.save([(list(c.ids), c.version) for c in found], folder / f"{rank}.pt")
    try:
        engine.sync(torch.nn.Linear(2, 2), 4)  # one that needs no gathering, in which ranks would meet
    except RuntimeError as error:
        (folder / f"{rank}.txt").write_text(str(error))
    torch.distributed.barrier()  # or the first to leave breaks the others' connections
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
