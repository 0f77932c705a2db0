"""The rates of the machine, and the stopwatch."""

import time

import pytest
import torch

from gopd_lightning import machine
from gopd_lightning.machine import Stopwatch, rates

CPU = torch.device("cpu")


def test_stopwatch_adds_up_what_runs_inside_and_nothing_else():
    watch = Stopwatch(CPU)
    assert watch.seconds() == 0
    for _ in range(2):
        with watch:
            time.sleep(0.02)
        time.sleep(0.2)
    assert 0.04 <= watch.seconds() < 0.2


def test_stopwatch_counts_work_that_fails():
    watch = Stopwatch(CPU)
    with pytest.raises(ValueError, match="no"), watch:
        raise ValueError("no")
    assert watch.seconds() > 0


def test_rates_are_the_best_that_was_seen(monkeypatch):
    seconds = iter([3.0, 0.5, 2.0])
    monkeypatch.setattr(machine.Stopwatch, "seconds", lambda self: next(seconds))
    monkeypatch.setattr(machine, "_PATIENCE", 0.0)
    assert machine._best(lambda: None, CPU) == 0.5  # two runs at least


def test_no_product_is_faster_than_the_measured_rate():
    """Measured anew before and after, as other programs may have come or gone since the process measured it."""
    before = rates.__wrapped__(CPU, torch.float32)
    a = torch.randn(512, 512)
    began = time.perf_counter()
    a @ a
    product = 2 * 512**3 / (time.perf_counter() - began)
    after = rates.__wrapped__(CPU, torch.float32)
    assert product < 2 * max(before.flops, after.flops)
    assert before.bytes > 1e8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_stopwatch_waits_for_the_device():
    device = torch.device("cuda", 0)
    a = torch.randn(4096, 4096, device=device)
    watch = Stopwatch(device)
    with watch:
        for _ in range(20):
            a @ a
    assert 20 * 2 * 4096**3 / watch.seconds() < 2 * rates(device, torch.float32).flops
