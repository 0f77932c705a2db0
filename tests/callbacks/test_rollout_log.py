from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
import torch
from gopd_callbacks import rollout_log
from gopd_callbacks.rollout_log import RolloutLog, one_of_each_domain, shown, write_rows
from tiny_run import Loader, Tiny, row, trainer

from gopd_lightning.errors import InputError
from gopd_lightning.records import Batch


def test_a_file_every_n_steps_with_every_row(tmp_path: Path) -> None:
    trainer(tmp_path, RolloutLog(every_n_steps=5)).fit(Tiny(), Loader(12))
    files = sorted((tmp_path / "rollouts").iterdir())
    assert [file.name for file in files] == ["step-000005.parquet", "step-000010.parquet"]
    rows = pq.read_table(files[0]).to_pylist()
    assert [(r["step"], r["uid"], r["sample"], r["domain"]) for r in rows] == [
        (5, 5, sample, domain) for domain in ("math", "code") for sample in (0, 1)
    ]


def test_a_row_holds_all_that_the_loss_is_made_of(tmp_path: Path) -> None:
    one = row(3, sample=1)
    figures = {"student": torch.tensor([-1.0, -2.0, -0.5]), "loss": torch.tensor([1, 2, 3.0])}
    one.scores = cast(Any, figures | {"weight": [0.1, 0.2, 0.3], "unknown": [1.0]})
    write_rows([one], 7, tmp_path / "deep/rows.parquet")
    (read,) = pq.read_table(tmp_path / "deep/rows.parquet").to_pylist()
    assert read["response_ids"] == [3, 4, 7]
    assert (read["prompt"], read["response"]) == ("math prompt 3", "answer 3")
    assert (read["reward"], read["finished"]) == (1.0, False)
    assert read["student"] == [-1.0, -2.0, -0.5]
    assert read["weight"] == pytest.approx([0.1, 0.2, 0.3])
    assert read["teacher"] is None
    assert "unknown" not in read


def test_scores_are_kept_to_the_last_bit_of_float32(tmp_path: Path) -> None:
    one, values = row(1), torch.randn(3, generator=torch.Generator().manual_seed(0))
    one.scores = {"student": values.tolist()}
    write_rows([one], 1, tmp_path / "rows.parquet")
    read = pq.read_table(tmp_path / "rows.parquet")["student"][0].as_py()
    assert torch.equal(torch.tensor(read), values)


@pytest.mark.parametrize(("world", "name"), [(1, "step-000010.parquet"), (2, "step-000010-rank1.parquet")])
def test_one_file_a_rank(tmp_path: Path, world: int, name: str) -> None:
    run: Any = SimpleNamespace(
        global_step=10,
        world_size=world,
        global_rank=world - 1,
        is_global_zero=world == 1,
        default_root_dir=str(tmp_path),
    )
    RolloutLog().on_train_batch_end(run, cast(Any, None), None, Batch([], [row(1)]), 9)
    assert [file.name for file in (tmp_path / "rollouts").iterdir()] == [name]


def test_each_domain_is_shown_before_any_comes_twice() -> None:
    rows = [row(1), row(2), row(3, domain="code"), row(4, domain="logic")]
    assert [r.prompt.domain for r in one_of_each_domain(rows, 2)] == ["math", "code"]
    assert [r.prompt.uid for r in one_of_each_domain(rows, 9)] == [1, 3, 4, 2]


def test_completions_are_printed_in_a_terminal_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(tmp_path, RolloutLog(5), max_steps=5).fit(Tiny(), Loader(5))
    assert "answer" not in capsys.readouterr().out
    monkeypatch.setattr(rollout_log, "on_terminal", lambda: True)
    trainer(tmp_path, RolloutLog(5, console=2), max_steps=5).fit(Tiny(), Loader(5))
    assert capsys.readouterr().out.count(">>> answer 5") == 2


def test_a_shown_completion_has_prompt_response_and_reward() -> None:
    text = shown(row(3, sample=1), 20)
    assert text.splitlines() == [
        "--- step 20, math, reward 1, 3 tokens, cut at the length limit",
        "math prompt 3",
        ">>> answer 3",
    ]


def test_every_n_steps_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="every_n_steps is 0"):
        RolloutLog(every_n_steps=0)
