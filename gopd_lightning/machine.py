"""What the machine at hand can do, measured: matrix products and copies a second; and a stopwatch for its device."""

import time
from collections.abc import Callable
from functools import cache, partial
from types import TracebackType
from typing import Any

import torch

from gopd_lightning.cost import Rates

_PATIENCE = 0.1  # seconds for the runs of one size: the best of many short ones stands even beside other work
_MATRIX = {"cpu": (512, 1024)}  # alone, both are as fast as larger ones; beside other work, now one, now the other
_COPIED = {"cpu": 2**26}  # bytes, past the caches and small beside a run


class Stopwatch:
    """Adds up the time of what runs inside `with watch:`, of the device's own work where that runs on its own.

    Args:
        device: Where the work is done. On CUDA, events are recorded and nothing waits before `seconds`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []  # beginnings and ends in turns: seconds, or CUDA events

    def __enter__(self) -> None:
        self._marks.append(self._now())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._marks.append(self._now())

    def seconds(self) -> float:
        """Seconds so far; waits for the device."""
        pairs = list(zip(self._marks[::2], self._marks[1::2], strict=True))
        if self._device.type != "cuda":
            return float(sum(ended - began for began, ended in pairs))
        torch.cuda.synchronize(self._device)
        return float(sum(began.elapsed_time(ended) for began, ended in pairs)) / 1e3

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event


@cache
def rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """The rates of a device, measured once a process: the best of a few large products and copies.

    Args:
        device: The device.
        dtype: Dtype of the matrices; float32 takes whatever precision torch is set to for it.
    """
    return Rates(flops=_matmul_rate(device, dtype), bytes=_copy_rate(device))


def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of square matrix products."""
    found = []
    for size in _MATRIX.get(device.type, (8192,)):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        found.append(2 * size**3 / _best(partial(torch.mm, a, b, out=out), device))
    return max(found)


@cache
def _copy_rate(device: torch.device) -> float:
    """Bytes a second of a copy, counting what is read and what is written."""
    size = _COPIED.get(device.type, 2**28)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * size / _best(lambda: target.copy_(source), device)


@torch.inference_mode()
def _best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest run of those that fit in a short while, after one to warm up."""
    work()
    found: list[float] = []
    until = time.perf_counter() + _PATIENCE
    while len(found) < 2 or time.perf_counter() < until:
        watch = Stopwatch(device)
        with watch:
            work()
        found.append(watch.seconds())
    return min(found)
