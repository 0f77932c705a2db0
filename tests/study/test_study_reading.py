"""What runs left is read prompt by prompt, and validation decides what the plan leaves open."""

import json
from types import SimpleNamespace

import pytest
from measured import answered

from study.choices import Choices
from study.plan import Experts
from study.reading import answers, found, tokens
from study.rows import prompts, responses

RIGHT, WRONG = ([[1, 1], [1, 0]], [1, 1]), ([[0, 0], [1, 0]], [0, 0])


def design(work, *runs, **mode):
    return SimpleNamespace(mode=SimpleNamespace(work=work, **{"grids": {}, "experts": {}, **mode}), runs=runs)


def test_answers_are_shares_of_right_samples_prompt_by_prompt(tmp_path):
    run = answered(tmp_path, "a", {"math": ([[1, 0], [1, 1]], [0, 1]), "code": WRONG})
    one = answers(run, "math")
    assert one.sampled.tolist() == [0.5, 1.0]
    assert one.greedy.tolist() == [0.0, 1.0]
    assert one.length.tolist() == [15.0, 15.0]
    assert one.entropy.tolist() == pytest.approx([2 / 30, 2 / 30])


def test_a_result_is_found_by_its_pattern_only_when_it_is_there(tmp_path):
    run = answered(tmp_path, "a", {"math": RIGHT, "code": RIGHT})
    assert found(run.commands[1]) == tmp_path / "a" / "test" / "greedy-student-1" / "summary.json"
    assert found(run.commands[0]) is None


def test_the_best_setting_on_validation_is_taken(tmp_path):
    runs = (
        answered(tmp_path, "grid/opd/0.001", {"math": WRONG, "code": RIGHT}),
        answered(tmp_path, "grid/opd/0.002", {"math": RIGHT, "code": RIGHT}),
    )
    choices = Choices(design(tmp_path, *runs, grids={"opd": (1e-3, 2e-3), "sft-raw": (5e-4,)}))
    assert choices.resolved(("--lr", "{rate:opd}", "{rate:sft-raw}")) == ("--lr", "0.002", "0.0005")
    assert choices.tried("opd") == {1e-3: pytest.approx(0.5), 2e-3: pytest.approx(0.875)}


def test_an_expert_stops_where_it_is_as_good_as_the_shipped_one(tmp_path):
    shipped = answered(tmp_path, "validation/math", {"math": ([[1, 1]] * 4, [1, 1, 1, 0])}, domains=("math",))
    (tmp_path / "experts/large/math").mkdir(parents=True)
    curve = "step,val/math/avg@1\n1,0.5\n2,0.7\n3,0.79\n4,0.9\n5,\n"
    (tmp_path / "experts/large/math/metrics.csv").write_text(curve)
    choices = Choices(design(tmp_path, shipped, experts={"large": Experts(like=True)}))
    assert choices.resolved(("step-{step:large/math}",)) == ("step-3",)


def test_json_in_a_command_is_left_alone(tmp_path):
    word = json.dumps([{"domain": "math", "path": "x"}])
    assert Choices(design(tmp_path)).resolved((word,)) == (word,)


def test_tokens_are_those_of_all_steps(tmp_path):
    run = answered(tmp_path, "early/opd/0", {"math": RIGHT, "code": RIGHT})
    (tmp_path / "early/opd/0/metrics.csv").write_text("step,length/math,length/code\n1,20,30\n2,22,\n")
    assert tokens(run, tmp_path) == 32 * (20 + 30 + 22)


def test_fine_tuning_counts_the_experts_samples(tmp_path):
    run = answered(tmp_path, "early/sft-raw/0", {"math": RIGHT, "code": RIGHT}, needs=("samples/early/0",))
    folder = tmp_path / "samples/early/0/by-math/expert-1"
    folder.mkdir(parents=True)
    sets = {"math": {"figures": {"length": {"mean": 25.0}}, "problems": 4, "samples": 1}}
    (folder / "summary.json").write_text(json.dumps({"sets": sets}))
    assert tokens(run, tmp_path) == 100.0


def test_other_seeds_draw_other_prompts_and_the_same_seed_the_same(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prompts(tmp_path / name, seed, 20)
    texts = [(tmp_path / name / "math.jsonl").read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0].splitlines())) == 20


def test_verified_rows_are_the_right_ones_of_the_raw_rows(tmp_path):
    for domain in ("math", "code"):
        folder = tmp_path / f"by-{domain}" / "expert-1"
        folder.mkdir(parents=True)
        rows = [{"set": domain, "prompt": "p", "response": f"{domain}{r}", "reward": r} for r in (0.0, 1.0)]
        (folder / f"{domain}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    responses(tmp_path)
    raw, verified = ((tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("raw", "verified"))
    assert len(raw) == 4
    assert [json.loads(row)["response"] for row in verified] == ["math1.0", "code1.0"]
