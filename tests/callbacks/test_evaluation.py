"""`gopd test` as a measurement: what it leaves, what it finds again, what it refuses."""

import json
from pathlib import Path

import pytest
import tiny
from gopd_callbacks.sample_store import SampleStore
from tiny_command import command, merge, prepare, write

MATCH = {"class_path": "gopd_lightning.verifiers.ExactMatch"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("models"))


def settings(models: Path, run: Path, samples: int = 3, model: str = "base") -> dict:
    sources = [{"path": str(models / f"{d}.jsonl"), "name": d} for d in ("math", "code")]
    evaluation = {
        "class_path": "gopd_callbacks.Evaluation",
        "init_args": {"sampling": {"n": samples, "max_new_tokens": 8}, "verifiers": {"math": MATCH, "code": MATCH}},
    }
    progress = {"class_path": "gopd_callbacks.Progress", "init_args": {"plain_every": 1}}
    return {
        "seed_everything": 0,
        "verbose": False,
        "model": {"class_path": "gopd_lightning.Policy", "init_args": {"student": {"path": str(models / model)}}},
        "data": {
            "class_path": "gopd_lightning.PromptData",
            "init_args": {"test": sources, "eval_batch_size": 5, "max_prompt_tokens": 16},
        },
        "trainer": {"accelerator": "cpu", "default_root_dir": str(run), "callbacks": [evaluation, progress]},
    }


def evaluate(capsys, content: dict, folder: Path):
    found = command(capsys, "test", "--config", write(content, folder / "evaluate.yaml"))
    return found, sorted((folder / "eval").glob("*/summary.json"))


def lines(folder: Path, name: str = "math") -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(models, tmp_path_factory):
    """An uninterrupted evaluation of three samples a prompt."""
    folder = tmp_path_factory.mktemp("whole")
    from gopd_lightning.cli import main

    main(["test", "--config", write(settings(models, folder / "eval"), folder / "evaluate.yaml")])
    (summary,) = (folder / "eval").glob("*/summary.json")
    return summary.parent


def samples(folder: Path) -> list[tuple]:
    keys = ("set", "id", "sample", "response", "reward", "tokens", "finished")
    return [tuple(one[key] for key in keys) for name in ("math", "code") for one in lines(folder, name)]


def test_every_sample_and_all_that_made_it_is_on_disk(models, whole):
    assert {file.name for file in whole.iterdir()} == {"math.jsonl", "code.jsonl", "summary.json"}
    rows = lines(whole)
    assert [(row["id"], row["sample"]) for row in rows[:4]] == [("1", 0), ("1", 1), ("1", 2), ("2", 0)]
    assert len(rows) == 36
    wanted = {"prompt", "response", "answer", "reward", "reason", "seconds", "tokens", "finished", "crashed", "vote"}
    assert wanted <= set(rows[0])
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["model"]["path"] == str(models / "base")
    assert len(summary["model"]["weights"]) == 32
    assert summary["sampling"] == {"n": 3, "max_new_tokens": 8, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    assert summary["graders"]["math"]["class_path"].endswith("ExactMatch")
    assert {"torch", "transformers", "gopd-lightning", "python"} <= set(summary["versions"])
    entry = summary["sets"]["math"]
    assert (entry["file"], entry["problems"], entry["samples"]) == ("math.jsonl", 12, 3)


def test_figures_are_those_of_the_file(whole):
    figures = json.loads((whole / "summary.json").read_text())["sets"]["math"]["figures"]
    rows = lines(whole)
    assert figures["avg@3"]["mean"] == pytest.approx(sum(row["reward"] for row in rows) / len(rows))
    assert figures["length"]["mean"] == pytest.approx(sum(row["tokens"] for row in rows) / len(rows))
    assert figures["truncated"]["mean"] == pytest.approx(sum(not row["finished"] for row in rows) / len(rows))
    for figure in figures.values():
        assert figure["low"] <= figure["mean"] <= figure["high"]
    assert figures["length"]["low"] < figures["length"]["high"]


def test_progress_and_table_are_shown(models, tmp_path, capsys):
    found, (summary,) = evaluate(capsys, settings(models, tmp_path / "eval"), tmp_path)
    assert found.code == 0
    assert "samples 15/72" in found.out
    assert "accuracy so far" in found.out
    assert "95 % interval" in found.out
    assert str(summary.parent) in found.out


def test_second_run_samples_nothing_and_says_the_same(models, tmp_path, capsys, monkeypatch):
    content = settings(models, tmp_path / "eval")
    _, (summary,) = evaluate(capsys, content, tmp_path)
    before = (summary.parent / "math.jsonl").read_bytes()
    monkeypatch.setattr("gopd_lightning.rollouts.TransformersEngine.generate", None)
    found, (again,) = evaluate(capsys, content, tmp_path)
    assert found.code == 0
    assert again == summary
    assert (summary.parent / "math.jsonl").read_bytes() == before


def test_more_samples_cost_only_the_further_ones(models, whole, tmp_path, capsys):
    _, (summary,) = evaluate(capsys, settings(models, tmp_path / "eval", samples=1), tmp_path)
    first = {row["id"]: row["seconds"] for row in lines(summary.parent)}
    _, found = evaluate(capsys, settings(models, tmp_path / "eval", samples=3), tmp_path)
    assert found == [summary]
    assert samples(summary.parent) == samples(whole)
    assert {row["id"]: row["seconds"] for row in lines(summary.parent) if row["sample"] == 0} == first


def test_killed_evaluation_goes_on_with_the_very_next_sample(models, whole, tmp_path, capsys, monkeypatch):
    content = settings(models, tmp_path / "eval")
    kept, add = [], SampleStore.add

    def die(self, rows, seconds=None):
        if len(kept) == 20:
            raise KeyboardInterrupt
        kept.extend(rows if seconds is not None else ())
        add(self, rows, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(SampleStore, "add", die)
        found, summaries = evaluate(capsys, content, tmp_path)
    assert (found.code, summaries) == (130, [])
    sampled = []
    with monkeypatch.context() as patch:
        patch.setattr(SampleStore, "add", lambda self, rows, s=None: (sampled.append(s), add(self, rows, s)))
        found, (summary,) = evaluate(capsys, content, tmp_path)
    assert sum(seconds is not None for seconds in sampled) == 72 - 20
    assert samples(summary.parent) == samples(whole)


@pytest.mark.parametrize("change", ["weights", "temperature", "seed", "max_new_tokens"])
def test_other_weights_sampling_or_seed_never_share_samples(models, whole, tmp_path, capsys, change):
    content = settings(models, tmp_path / "eval", samples=1)
    sampling = content["trainer"]["callbacks"][0]["init_args"]["sampling"]
    if change == "weights":
        tiny.model(tmp_path / "base", seed=9)  # the same name with other weights
        content["model"]["init_args"]["student"]["path"] = str(tmp_path / "base")
    elif change == "seed":
        content["seed_everything"] = 1
    else:
        sampling[change] = {"temperature": 0.5, "max_new_tokens": 7}[change]
    _, (summary,) = evaluate(capsys, content, tmp_path)
    assert summary.parent.name.startswith("base-")
    assert summary.parent.name != whole.name


def test_set_is_sampled_the_same_whatever_stands_beside_it(models, whole, tmp_path, capsys):
    content = settings(models, tmp_path / "eval")
    content["data"]["init_args"]["test"].reverse()
    content["data"]["init_args"]["test"].pop()
    _, (summary,) = evaluate(capsys, content, tmp_path)
    assert lines(summary.parent, "code")[0]["response"] == lines(whole, "code")[0]["response"]
    assert [row["response"] for row in lines(summary.parent, "code")] == [r["response"] for r in lines(whole, "code")]


def test_student_of_a_fit_measures_as_in_its_table(models, tmp_path, capsys):
    content = merge(models, tmp_path / "run")
    content["trainer"] |= {"max_steps": 1}
    content["trainer"]["callbacks"] = [
        next(c for c in content["trainer"]["callbacks"] if c["class_path"].endswith("Rollout")),
        {"class_path": "gopd_callbacks.HFExport"},
        {"class_path": "gopd_callbacks.Results", "init_args": {"samples": 3}},
    ]
    assert command(capsys, "fit", "--config", write(content, tmp_path / "fit.yaml")).code == 0
    table = json.loads((tmp_path / "run" / "results.json").read_text())["student"]
    content = settings(models, tmp_path / "eval")
    content["model"]["init_args"]["student"]["path"] = str(tmp_path / "run")  # a run folder
    _, (summary,) = evaluate(capsys, content, tmp_path)
    assert summary.parent.name.startswith("run-")
    sets = json.loads(summary.read_text())["sets"]
    for name in ("math", "code"):
        assert sets[name]["figures"]["avg@3"]["mean"] == pytest.approx(table[name]["avg@3"])


def test_run_folder_without_a_student_says_how_to_make_one(models, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    content = settings(models, tmp_path / "eval")
    content["model"]["init_args"]["student"]["path"] = str(tmp_path / "run")
    found, _ = evaluate(capsys, content, tmp_path)
    assert found.code == 2
    assert "gopd export" in found.errors[0]


def test_domain_without_verifier_is_refused_before_any_weights_load(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gopd_lightning.modules.student.load_student", None)
    content = settings(models, tmp_path / "eval")
    del content["trainer"]["callbacks"][0]["init_args"]["verifiers"]["code"]
    found, _ = evaluate(capsys, content, tmp_path)
    assert found.code == 2
    assert "the domain 'code' has no verifier" in found.errors[0]


def test_id_that_occurs_twice_is_refused(models, tmp_path, capsys):
    content = settings(models, tmp_path / "eval")
    rows = ['{"id": "x", "prompt": "Q1=", "domain": "math", "answer": "1"}'] * 2
    (tmp_path / "twice.jsonl").write_text("\n".join(rows) + "\n")
    content["data"]["init_args"]["test"] = [{"path": str(tmp_path / "twice.jsonl")}]
    found, _ = evaluate(capsys, content, tmp_path)
    assert found.code == 2
    assert "twice.jsonl row 2 (id x): the id 'x' of twice is taken by" in found.errors[0]


def test_grader_that_fails_is_loud_in_the_end_and_marked_in_the_file(models, tmp_path, capsys, monkeypatch):
    def fail(self, prompt, response):
        raise ValueError("no idea")

    monkeypatch.setattr("gopd_lightning.verifiers.ExactMatch._verdict", fail)
    found, (summary,) = evaluate(capsys, settings(models, tmp_path / "eval", samples=1), tmp_path)
    assert found.code == 0
    assert "DO NOT TRUST THIS SET: math: the grader failed on 100.00% of the samples" in found.out
    rows = lines(summary.parent)
    assert all(row["crashed"] and row["reward"] == 0.0 for row in rows)
    assert rows[0]["reason"] == "the verifier failed: ValueError: no idea"


def test_one_greedy_answer_a_prompt_stands_beside_the_samples(models, whole, tmp_path, capsys):
    content = settings(models, tmp_path / "eval")
    content["trainer"]["callbacks"][0]["init_args"]["greedy"] = True
    found, summaries = evaluate(capsys, content, tmp_path)
    assert found.out.count("avg@") == 2
    greedy, sampled = (summary.parent for summary in sorted(summaries, key=lambda s: s.parent.name, reverse=True))
    assert greedy.name.startswith("greedy-base-")
    assert samples(sampled) == samples(whole)
    sampling = json.loads((greedy / "summary.json").read_text())["sampling"]
    assert (sampling["temperature"], sampling["n"]) == (0.0, 1)
    assert len(lines(greedy)) == len({row["id"] for row in lines(sampled)})
