"""`gopd test` with TargetCurve: a point a lambda, found again after a kill, refused where there is no target."""

import json

import pytest
from tiny_command import command, merge, prepare, write

MATCH = {"class_path": "gopd_lightning.verifiers.ExactMatch"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("models"))


def settings(models, run, **curve):
    content = merge(models, run)
    given = {"sampling": {"n": 2, "max_new_tokens": 8}, "verifiers": {"math": MATCH, "code": MATCH}}
    callback = {"class_path": "gopd_callbacks.TargetCurve", "init_args": {**given, "reward_scales": [2, 0, 1], **curve}}
    content["trainer"]["callbacks"] = [callback]
    return content


def curve(capsys, content, folder):
    return command(capsys, "test", "--config", write(content, folder / "curve.yaml"))


def test_a_point_a_lambda_with_accuracies_length_and_entropy(models, tmp_path, capsys):
    found = curve(capsys, settings(models, tmp_path / "run"), tmp_path)
    assert found.code == 0, found.errors
    sets = json.loads((tmp_path / "run/target.json").read_text())["sets"]
    assert [point["reward_scale"] for point in sets["math"]] == [0, 1, 2]
    assert set(sets) == {"math", "code"}
    assert {"avg@2", "greedy", "length", "entropy", "truncated"} < set(sets["code"][0])
    assert all(0 < point["entropy"]["mean"] < 10 for point in sets["math"])
    assert (tmp_path / "run/target.png").stat().st_size > 10_000
    assert "The target by lambda" in found.out
    assert len(list((tmp_path / "run").glob("target-*/summary.json"))) == 6


def test_its_ends_are_the_evaluations_of_reference_and_teacher(models, tmp_path, capsys):
    assert curve(capsys, settings(models, tmp_path / "run"), tmp_path).code == 0
    for name, domain, scale in (("base", "math", 0), ("code", "code", 1)):
        content = settings(models, tmp_path / "one")
        content["model"] = {
            "class_path": "gopd_lightning.Policy",
            "init_args": {"student": {"path": str(models / name)}},
        }
        content["trainer"]["callbacks"][0]["class_path"] = "gopd_callbacks.Evaluation"
        del content["trainer"]["callbacks"][0]["init_args"]["reward_scales"]
        assert curve(capsys, content, tmp_path).code == 0
        (alone,) = (tmp_path / "one").glob(f"{name}-*/{domain}.jsonl")
        (mixed,) = (tmp_path / "run").glob(f"target-{scale}-????????/{domain}.jsonl")
        assert responses(alone) == responses(mixed)


def responses(file):
    return [json.loads(line)["response"] for line in file.read_text().splitlines()]


def test_a_second_run_samples_nothing_and_says_the_same(models, tmp_path, capsys, monkeypatch):
    content = settings(models, tmp_path / "run")
    assert curve(capsys, content, tmp_path).code == 0
    first = (tmp_path / "run/target.json").read_text()
    monkeypatch.setattr("gopd_lightning.rollouts.target_engine.TargetEngine.generate", None)
    assert curve(capsys, content, tmp_path).code == 0
    again = json.loads((tmp_path / "run/target.json").read_text())["sets"]
    for dataset, points in json.loads(first)["sets"].items():
        for point, other in zip(points, again[dataset], strict=True):
            assert point["avg@2"] == other["avg@2"]
            assert point["entropy"]["mean"] == pytest.approx(other["entropy"]["mean"])


def test_another_lambda_never_takes_the_samples_of_one(models, tmp_path, capsys):
    assert curve(capsys, settings(models, tmp_path / "run", reward_scales=[1]), tmp_path).code == 0
    assert curve(capsys, settings(models, tmp_path / "run", reward_scales=[1.5]), tmp_path).code == 0
    names = sorted(place.parent.name.rsplit("-", 1)[0] for place in (tmp_path / "run").glob("*/summary.json"))
    assert names == ["target-1", "target-1-greedy", "target-1.5", "target-1.5-greedy"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"reward_scale": 1.0}, "at a reward_scale of 1 there is no reference"),
        ({"class_path": "gopd_lightning.Policy"}, "the model has no teachers"),
    ],
)
def test_a_run_without_a_target_is_refused(models, tmp_path, capsys, change, line):
    content = settings(models, tmp_path / "run")
    if "class_path" in change:
        content["model"] = change | {"init_args": {"student": {"path": str(models / "base")}}}
    else:
        content["model"]["init_args"] |= change
    found = curve(capsys, content, tmp_path)
    assert (found.code, line in found.errors[0]) == (2, True), found.errors


@pytest.mark.parametrize("scales", [[], [1, 1]])
def test_lambdas_must_be_different_numbers(models, tmp_path, capsys, scales):
    found = curve(capsys, settings(models, tmp_path / "run", reward_scales=scales), tmp_path)
    assert found.code == 2
    assert "TargetCurve.reward_scales" in found.errors[-1]
