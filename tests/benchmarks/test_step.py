"""What is made of the steps of the trainers that take turns, and how their processes are led."""

from pathlib import Path

import models
import pytest
import step
import turns
from growth import excess, explained, line
from step import agreement, summary

FIRST = {"loss": 0.2, "gradient": 2.0, "log_ratio": -0.1}


def steps(seconds, peak_mb):
    return [{"seconds": s, "peak_mb": peak_mb, "tokens": 3000} for s in seconds]


def test_ratios_are_of_medians_and_memory_of_peaks():
    found = {
        "settings": {"prompts": 8},
        "first": {"TRL": FIRST, "gopd 1.0": FIRST | {"loss": 0.2002}},
        "steps": {
            "TRL": steps([60, 300, 59], 12000),
            "gopd 1.0": steps([20, 15, 14], 4500),
            "gopd 1.25": steps([30, 31, 30], 3000),
        },
    }
    rows = summary("float32", found)
    assert [(row["figure"], row["met"]) for row in rows] == [
        (4.0, True),
        (0.375, False),
        (2.0, True),
        (0.25, True),
        (0.001, True),
        (0.0, True),
        (50.0, None),
        (200.0, None),
        (100.0, None),
    ]
    assert len({row["what"] for row in rows}) == len(rows)


class FakeSide:
    """A trainer that steps in no time; notes what was asked of whom."""

    asked: list[tuple[str, int]]
    imposed = True

    def __init__(self, name, script, settings):
        self.name = name

    def step(self, longest):
        self.asked.append((self.name, longest))
        seconds = {"seconds": 2.0, "generation": 1.0, "update": 1.0, "tokens": 10, "peak_mb": 1.0}
        return FIRST | seconds | {"imposed": self.imposed}

    def end(self):
        self.asked.append((self.name, 0))


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(step, "Side", FakeSide)
    monkeypatch.setattr(FakeSide, "asked", [], raising=False)
    return FakeSide


SIDES = ("TRL float32", "gopd float32 1.0", "gopd float32 1.25")


def test_all_sides_take_a_short_step_and_then_turns(fake):
    found = step.race("float32", {"longest": 256}, rounds=2)
    assert fake.asked == [(side, longest) for longest in (32, 256, 256, 0) for side in SIDES]
    assert {name: len(steps) for name, steps in found["steps"].items()} == {"TRL": 2, "gopd 1.0": 2, "gopd 1.25": 2}


@pytest.mark.parametrize(("seconds", "rounds"), [(-1, 1), (100, step.REPEATS)])
def test_rounds_end_with_the_seconds_but_there_is_one(fake, monkeypatch, seconds, rounds):
    monkeypatch.setitem(step.SECONDS, "float32", seconds)
    assert len(step.race("float32", {"longest": 256}, rounds=None)["steps"]["TRL"]) == rounds


def test_other_tokens_than_were_imposed_end_the_race(fake, monkeypatch):
    monkeypatch.setattr(fake, "imposed", False)
    with pytest.raises(RuntimeError, match="generated other tokens"):
        step.race("float32", {"longest": 256}, rounds=1)
    assert fake.asked[-3:] == [(side, 0) for side in SIDES]


def test_the_sampled_estimator_is_compared_by_its_log_ratio():
    first = {"TRL": FIRST, "gopd 1.0": {"loss": 9.0, "gradient": 9.0, "log_ratio": -0.11}}
    assert agreement("sampled", first) == {"log_ratio": pytest.approx(0.1)}


def test_a_side_steps_when_it_is_told_to_and_a_failure_carries_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "CACHE", tmp_path)
    script = tmp_path / "side.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(turns.__file__).parent)!r}); import turns\n"
        "turns.tell({}); longest = turns.wait(); turns.tell({'longest': longest}); turns.wait(); 1 / 0"
    )
    side = turns.Side("one", str(script), {})
    assert side.step(32) == {"longest": 32}
    with pytest.raises(RuntimeError, match="one ended with status 1: ZeroDivisionError"):
        side.step(32)
    side.end()


def test_a_folder_that_is_kept_is_made_once_and_never_half(tmp_path):
    def fails(folder):
        (folder / "half").touch()
        raise OSError

    with pytest.raises(OSError):
        models.kept(tmp_path / "a", fails)
    assert not (tmp_path / "a").exists()
    models.kept(tmp_path / "a", lambda folder: (folder / "whole").touch())
    assert (models.kept(tmp_path / "a", fails) / "whole").exists()


def test_growth_is_judged_against_a_line():
    points = [{"tokens": t, "seconds": 2 * t + 1, "length": 64} for t in (1, 2, 4, 8)]
    assert line(points) == (pytest.approx(2), pytest.approx(1), pytest.approx(1))
    assert excess(points) == pytest.approx(0)
    points[-1]["seconds"] *= 1.5
    assert excess(points) == pytest.approx(0.5)


def test_attention_explains_a_growth_faster_than_the_tokens():
    points = [{"tokens": 4 * length, "length": length} for length in (64, 128, 256, 512, 1024, 2048)]
    assert 0.02 < explained(points) < 0.2
