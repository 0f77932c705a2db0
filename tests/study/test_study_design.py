"""The design: it fits its time, compares like with like, and nothing that is reported chooses anything."""

import json
from dataclasses import replace

import pytest

from study.claims import CLAIMS, DIRECTIONS
from study.design import GRID_SEED, Design
from study.plan import FULL, METHODS, MODES, QUICK
from study.running import SIDE_BY_SIDE, with_needs

BOTH = pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))
WAITING = 0.93  # share of the time in which both cores have something to do


def words(run):
    return [word for command in run.commands for word in command.words]


def after(option, run):
    found = words(run)
    return found[found.index(option) + 1]


def students(mode):
    made = [run for run in Design(mode).runs if run.group and len(run.commands) > 1]
    return [run for run in made if "--trainer.max_steps" in words(run)]


@BOTH
def test_the_planned_seconds_fit(mode):
    planned = sum(run.seconds for run in Design(mode).runs)
    assert planned <= 60 * mode.minutes * SIDE_BY_SIDE * WAITING
    longest = max(run.seconds for run in Design(mode).runs)
    assert longest < 60 * mode.minutes / 3  # or one core would wait for it


@BOTH
def test_runs_have_names_of_their_own_and_need_only_runs_that_are_there(mode):
    runs = Design(mode).runs
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    assert {need for run in runs for need in run.needs} <= set(names)


@BOTH
def test_every_student_makes_as_many_steps_on_as_many_responses(mode):
    for run in students(mode):
        assert after("--trainer.max_steps", run) == str(mode.steps)
        if "--data.prompts_per_step" in words(run):
            assert int(after("--data.prompts_per_step", run)) == 32 * len(run.domains)
    samples = [run for run in Design(mode).runs if run.name.startswith("samples/")]
    assert {run.commands[0].words[-1] for run in samples} == {str(32 * mode.steps)}


def test_three_seeds_of_each_distillation_and_five_of_the_headline_pair():
    counts = {}
    for run in students(FULL):
        counts.setdefault((run.group, run.domains), set()).add(run.seed)
    assert min(map(len, counts.values())) >= 3
    for group in ("early/opd", "early/exopd-1.25", "early/exopd-2"):
        assert len(counts[group, ("math", "code")]) == 5


def test_what_has_no_luck_is_made_once():
    merged = [run.group for run in Design(FULL).runs if run.group and "/weights-" in run.group]
    assert len(merged) == len(set(merged)) == 21


@BOTH
def test_nothing_is_trained_or_chosen_on_test_prompts(mode):
    for run in Design(mode).runs:
        assert "_test.jsonl" not in " ".join(run.commands[0].words if len(run.commands) > 1 else ())
        if run.name.startswith(("grid/", "validation/", "experts/")):
            assert "_test.jsonl" not in " ".join(words(run))


@BOTH
def test_what_chooses_a_setting_is_never_reported(mode):
    for run in Design(mode).runs:
        assert (run.seed == GRID_SEED) <= (not run.group)


def test_every_claim_is_about_groups_that_the_full_plan_measures():
    groups = {run.group for run in Design(FULL).runs}
    named = {name for claim in CLAIMS for part in claim.parts for name in part.weights}
    assert named <= groups
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


def test_what_the_quick_plan_must_show_it_measures():
    groups = {run.group for run in Design(QUICK).runs}
    assert {name for direction in DIRECTIONS for name in direction.weights} <= groups


def test_a_grid_of_one_value_costs_nothing():
    grids = dict.fromkeys(FULL.grids, (1e-3,))
    assert not [run for run in Design(replace(FULL, grids=grids)).runs if run.name.startswith("grid/")]


def test_the_reference_is_the_larger_base_only_where_the_reward_is_corrected():
    runs = {run.group: run for run in Design(FULL).runs if run.seed == 0}
    assert json.loads(after("--model.reference", runs["strong/exopd-1.25-corrected"]))["path"].endswith("base/student")
    assert "--model.reference" not in words(runs["strong/exopd-1.25"])


def test_a_chosen_group_brings_what_it_needs_and_no_more():
    wanted = with_needs(Design(FULL), ["early/sft-verified"])
    assert {"early/sft-verified/2", "samples/early/2", "samples/early/100", "grid/sft-verified/0.001"} <= wanted
    assert not [name for name in wanted if name.startswith(("single/", "experts/", "early/opd"))]


def test_an_unknown_group_is_named():
    with pytest.raises(SystemExit, match="no group early/expod"):
        with_needs(Design(FULL), ["early/expod"])


def test_every_method_of_the_plan_is_known_and_has_a_setting():
    for names in FULL.methods.values():
        for name in names:
            method = METHODS[name]
            assert method.how == "weights" or (method.tuned_as or name) in FULL.grids
