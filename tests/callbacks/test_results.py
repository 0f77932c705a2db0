"""Baselines and results: everybody on the same prompts, both columns, once."""

import json

import pytest
import tiny_fit
from gopd_callbacks import Baselines, Results, Rollout
from gopd_callbacks.contest import contest_of, contestant, frozen_contestants

from gopd_lightning import PromptData
from gopd_lightning.data import SourceSpec
from gopd_lightning.rollouts import Sampling
from gopd_lightning.verifiers import ExactMatch

DOMAINS = ("math", "code")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("results")
    tiny_fit.prepare(found)
    return found


def prompts(folder):
    sources = [SourceSpec(path=str(folder / f"{d}.jsonl"), domain=d) for d in DOMAINS]
    return PromptData(train=sources, val=sources, test=sources, prompts_per_step=8, max_prompt_tokens=16)


def fit(folder, run, **settings):
    rollout = Rollout(sampling=Sampling(max_new_tokens=6), verifiers={d: ExactMatch() for d in DOMAINS})
    return tiny_fit.fit(
        folder,
        tiny_fit.build(folder),
        run=run,
        prompts=prompts(folder),
        rollout=rollout,
        callbacks=(Baselines(), Results(samples=3)),
        enable_checkpointing=True,
        max_steps=2,
        **settings,
    )


def test_results_hold_everybody_with_errors_and_the_table_is_printed_again(folder, capsys):
    fit(folder, "run")
    content = json.loads((folder / "run" / "results.json").read_text())
    assert list(content) == ["base", "teacher:math", "teacher:code", "student"]
    for by_dataset in content.values():
        assert set(by_dataset) == set(DOMAINS)
        for entry in by_dataset.values():
            assert set(entry) == {"avg@3", "stderr", "greedy", "greedy_stderr", "n", "step"}
            assert entry["n"] == 24
            assert 0 <= entry["avg@3"] <= 1
    printed = capsys.readouterr().out
    assert "student" in printed
    file = folder / "run" / "results.json"
    written = file.stat().st_mtime_ns
    fit(folder, "run", resume=True)
    assert "student" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == written


def test_baselines_are_measured_once_on_the_validation_prompts(folder):
    fit(folder, "base")
    file = folder / "base" / "baselines.json"
    content = json.loads(file.read_text())
    assert list(content) == ["base", "teacher:math", "teacher:code"]
    assert set(content["base"]["math"]) == {"avg@1"}


def test_a_student_that_has_not_moved_measures_as_its_base(folder):
    module = tiny_fit.build(folder, optimizer=lambda params: __import__("torch").optim.SGD(params, lr=0.0))
    rollout = Rollout(sampling=Sampling(n=2, max_new_tokens=6), verifiers={d: ExactMatch() for d in DOMAINS})
    out = tiny_fit.fit(folder, module, prompts=prompts(folder), rollout=rollout, max_steps=1)
    contest = contest_of(rollout, out["trainer"], module, "val")
    found = {}
    for name in [*frozen_contestants(module), "student"]:
        with contestant(module, name) as model:
            rows = contest.graded(contest.answers(name, model, Sampling(n=4, max_new_tokens=6)))
        found[name] = contest.accuracy(rows, 4)
    assert found["base"] == found["student"]
    assert found["base"]["math"].prompts == 24
