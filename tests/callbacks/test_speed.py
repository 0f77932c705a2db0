"""What `Speed` logs of a fit: by hand-made records of scoring, and real rows, models and seconds."""

from types import SimpleNamespace
from typing import Any

import pytest
import tiny_fit
from gopd_callbacks import Rollout, Speed, speed
from lightning.pytorch import Callback

from gopd_lightning.cost import Scored
from gopd_lightning.metrics_file import read_rows
from gopd_lightning.models import StudentSpec
from gopd_lightning.modules.grpo import GRPO
from gopd_lightning.rollouts import Sampling
from gopd_lightning.verifiers import ExactMatch

ALWAYS = {f"speed/{name}tokens_per_s" for name in ("", "rollout_", "update_", "train_")}
ALWAYS |= {f"time/{name}_s" for name in ("rollout", "verify", "update", "train")}
SCORED = [Scored("student", 80, 100), Scored("teacher:math", 30, 60), Scored("reference", 60, 60)]


class Given(Callback):
    """What the step is said to have run; half of the update is scoring, however little frozen models did."""

    def __init__(self, scored: list[Scored]) -> None:
        self.scored = scored

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        batch.info |= {"scored": self.scored, "score_s": batch.info["update_s"] / 2}


def figures(folder, module, scored=SCORED, n=1) -> list[dict[str, float]]:
    verifiers = {domain: ExactMatch() for domain in ("math", "code")}
    rollout = Rollout(sampling=Sampling(n=n, max_new_tokens=10), verifiers=verifiers)
    tiny_fit.fit(folder, module, callbacks=(Given(scored), Speed()), rollout=rollout)
    rows = read_rows(folder / "run" / "metrics.csv")
    return [{k: float(v) for k, v in row.items() if v and k.startswith(("speed/", "time/"))} for row in rows]


@pytest.fixture(scope="module")
def merge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merge")
    tiny_fit.prepare(folder)
    return figures(folder, tiny_fit.build(folder))


def test_every_step_has_seconds_and_rates_of_every_phase(merge):
    assert len(merge) == 2
    for row in merge:
        assert row.keys() >= ALWAYS | {"time/score_s", "speed/score_tokens_per_s"}
        assert row["time/update_s"] == pytest.approx(row["time/score_s"] + row["time/train_s"])
        phases = sum(1 / row[f"speed/{phase}_tokens_per_s"] for phase in ("rollout", "score", "train"))
        tokens = row["speed/update_tokens_per_s"] * row["time/update_s"]
        assert 1 / row["speed/tokens_per_s"] == pytest.approx(phases + row["time/verify_s"] / tokens)


def test_padding_waste_is_the_share_of_positions_that_were_no_tokens(merge):
    assert merge[0]["speed/train_padding_waste"] == pytest.approx(0.2)
    assert merge[0]["speed/score_padding_waste"] == pytest.approx(0.25)


def test_mfu_and_limit_are_shares_by_phase_whose_seconds_add_up_to_the_step(merge):
    for row in merge:
        for kind in ("mfu", "of_limit"):
            found = {phase: row[f"speed/{phase}_{kind}"] for phase in ("rollout", "score", "train")}
            assert all(0 < share < 1 for share in found.values())
            needed = sum(share * row[f"time/{phase}_s"] for phase, share in found.items())
            step = row["time/rollout_s"] + row["time/verify_s"] + row["time/update_s"]
            assert row[f"speed/{kind}"] == pytest.approx(needed / step)
        assert row["speed/of_limit"] >= row["speed/mfu"]


def test_rates_of_the_machine_stand_in_the_first_row_alone(merge):
    rates = {"speed/float32_tflops", "speed/copy_gb_per_s"}
    assert merge[0].keys() >= rates
    assert not merge[1].keys() & rates


def test_runs_without_frozen_models_have_no_scoring_phase(tmp_path):
    tiny_fit.prepare(tmp_path)
    module = GRPO(student=StudentSpec(path=str(tmp_path / "base")))
    row = figures(tmp_path, module, [Scored("student", 80, 100)], n=2)[0]
    assert row.keys() >= ALWAYS | {"speed/mfu", "speed/of_limit", "speed/train_padding_waste"}
    assert not [name for name in row if "score" in name]


def test_models_of_unknown_cost_leave_mfu_and_limit_out(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "shape_of", lambda model, vocabulary: None)
    tiny_fit.prepare(tmp_path)
    row = figures(tmp_path, tiny_fit.build(tmp_path))[0]
    assert row.keys() >= ALWAYS | {"speed/score_padding_waste"}
    assert not [name for name in row if name.endswith(("mfu", "of_limit", "tflops"))]


def test_figures_of_two_ranks_are_those_of_the_whole_job():
    sums = {"rollout_s": 1.0, "verify_s": 0.5, "score_s": 1.0, "train_s": 1.5}
    sums |= {"score_real": 60.0, "score_padded": 90.0, "train_real": 80.0, "train_padded": 100.0}
    sums |= {f"{phase}_{kind}": 0.5 for phase in speed.PHASES for kind in ("matmul", "limit")}
    strategy = SimpleNamespace(root_device="cpu", reduce=lambda values, reduce_op: 2 * values)
    both = speed._over_ranks(SimpleNamespace(world_size=2, strategy=strategy), sums)
    assert speed._over_ranks(SimpleNamespace(world_size=1), sums) == sums
    assert speed._shares(both) == pytest.approx(speed._shares(sums))
    assert speed._times(both, 2) == pytest.approx(speed._times(sums, 1))
    assert speed._paces(both, 400, 2)["speed/tokens_per_s"] == pytest.approx(400 / 4)
    assert speed._paces(sums, 200, 1)["speed/tokens_per_s"] == pytest.approx(200 / 4)


def test_real_steps_leave_what_the_figures_are_made_of(tmp_path):
    tiny_fit.prepare(tmp_path)
    tiny_fit.fit(tmp_path, tiny_fit.build(tmp_path), callbacks=(Speed(),))
    for row in read_rows(tmp_path / "run" / "metrics.csv"):
        assert 0 < float(row["time/score_s"]) < float(row["time/update_s"])
        for phase in ("score", "train"):
            assert 0 <= float(row[f"speed/{phase}_padding_waste"]) < 1
            assert 0 < float(row[f"speed/{phase}_of_limit"]) < 1
