"""What a run is planned for: a GPU by name, or the machine at hand, measured."""

import os
from dataclasses import dataclass

import torch

from gopd_lightning.cost import Rates
from gopd_lightning.errors import InputError
from gopd_lightning.machine import rates

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Device:
    """One rank's device.

    Attributes:
        name: How it is called.
        memory: Bytes that one rank may fill.
        half: FLOPs a second of dense bfloat16 matrix products.
        single: The same in float32.
        bytes: Bytes a second of its memory.
        program: Bytes that a process takes before any model: interpreter and libraries, or the CUDA context.
        cpu: It is the CPU at hand.
    """

    name: str
    memory: int
    half: float
    single: float
    bytes: float
    program: int
    cpu: bool = False

    def rates(self, dtype: torch.dtype) -> Rates:
        """FLOPs and bytes a second in one dtype."""
        return Rates(self.single if dtype == torch.float32 else self.half, self.bytes)


_CONTEXT = GIB  # CUDA context, NCCL buffers and workspaces: an assumption, not measured
# GiB, dense bfloat16 TFLOP/s, float32 TFLOP/s, TB/s: NVIDIA's data sheets of the SXM parts where there are several
_GPUS = {
    "a100-40gb": (40, 312, 19.5, 1.555),
    "a100": (80, 312, 19.5, 2.039),
    "h100": (80, 989, 67, 3.35),
    "h200": (141, 989, 67, 4.8),
    "b200": (180, 2250, 75, 8.0),
    "l4": (24, 121, 30.3, 0.3),
    "l40s": (48, 362, 91.6, 0.864),
    "rtx4090": (24, 165, 82.6, 1.008),
}


def device_of(name: str | None, accelerator: str, ranks: int) -> Device:
    """The device of each rank.

    Args:
        name: A GPU of the table, `cpu`, or None for what the run would use on this machine.
        accelerator: The Trainer's setting.
        ranks: Ranks of one node, which share a CPU.

    Raises:
        InputError: An unknown name, or none where this machine has no GPU.
    """
    if name == "cpu" or (name is None and accelerator == "cpu"):
        return _this_cpu(ranks)
    if name in _GPUS:
        gib, half, single, speed = _GPUS[name]
        return Device(name, gib * GIB, half * 1e12, single * 1e12, speed * 1e12, _CONTEXT)
    if name is None and torch.cuda.is_available():
        return _this_gpu()
    wrong = "name the GPU with --gpu" if name is None else f"--gpu {name} is unknown"
    raise InputError(f"{wrong}; known: {', '.join(_GPUS)}, cpu")


def _this_cpu(ranks: int) -> Device:
    """The CPU at hand, an equal share of it for each rank."""
    half, single = (rates(torch.device("cpu"), dtype) for dtype in (torch.bfloat16, torch.float32))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    share = (half.flops / ranks, single.flops / ranks, single.bytes / ranks)
    return Device("cpu", pages // ranks, *share, program=_resident(), cpu=True)


def _this_gpu() -> Device:
    """The first GPU at hand."""
    device, found = torch.device("cuda"), torch.cuda.get_device_properties(0)
    half, single = (rates(device, dtype) for dtype in (torch.bfloat16, torch.float32))
    return Device(found.name, found.total_memory, half.flops, single.flops, half.bytes, _CONTEXT)


def _resident() -> int:
    """Bytes of this process, which has imported what a run imports."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
