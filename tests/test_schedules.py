import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from gopd_lightning.schedules import GivenSettings, WarmupDecay


def pair(kind, rate, **settings):
    """An optimizer and its schedule."""
    optimizer = torch.optim.AdamW(
        [torch.nn.Parameter(torch.zeros(1))], lr=rate, weight_decay=settings.pop("decay", 0.0)
    )
    return optimizer, kind(optimizer, **settings)


def steps(optimizer, schedule, count):
    """The rates of some steps."""
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def resumed(former, present):
    """`present` after the state of `former` was loaded into it, and its settings put back."""
    given = GivenSettings(*present)
    for new, old in zip(present, former, strict=True):
        new.load_state_dict(old.state_dict())
    given.put_back()
    return present


def test_warm_up_plateau_and_decay():
    rates = steps(*pair(WarmupDecay, 1.0, warmup_steps=2, decay_share=0.5, floor=0.25, total_steps=8), 8)
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(WarmupDecay, {"warmup_steps": 3, "decay_share": 0.7, "total_steps": 9}), (CosineAnnealingLR, {"T_max": 9})],
)
def test_resumed_with_the_same_settings_the_rates_are_bit_for_bit_the_same(kind, settings):
    whole = steps(*pair(kind, 0.3, **settings), 9)
    former = pair(kind, 0.3, **settings)
    first = steps(*former, 4)
    assert first + steps(*resumed(former, pair(kind, 0.3, **settings)), 5) == whole


def test_resumed_with_another_rate_the_schedule_goes_on_at_its_step():
    settings = {"warmup_steps": 3, "decay_share": 0.7, "total_steps": 9}
    former = pair(WarmupDecay, 0.3, **settings)
    steps(*former, 4)
    rates = steps(*resumed(former, pair(WarmupDecay, 0.5, **settings)), 5)
    assert rates == steps(*pair(WarmupDecay, 0.5, **settings), 9)[4:]


def test_resumed_with_another_length_and_weight_decay():
    former = pair(WarmupDecay, 0.3, decay_share=1.0, total_steps=6)
    steps(*former, 5)
    present = resumed(former, pair(WarmupDecay, 0.3, decay=0.1, decay_share=1.0, total_steps=10))
    assert present[0].param_groups[0]["weight_decay"] == 0.1
    assert steps(*present, 5) == steps(*pair(WarmupDecay, 0.3, decay_share=1.0, total_steps=10), 10)[5:]


def test_another_kind_of_schedule_keeps_its_shape_at_the_new_rate():
    former = pair(CosineAnnealingLR, 0.3, T_max=9)
    steps(*former, 4)
    rates = steps(*resumed(former, pair(CosineAnnealingLR, 0.6, T_max=9)), 5)
    assert rates == pytest.approx(steps(*pair(CosineAnnealingLR, 0.6, T_max=9), 9)[4:])
