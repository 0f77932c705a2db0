"""The page on SmolLM2 holds what the evaluations hold."""

import json

import pytest

from study import smollm2

SHARED = "<|im_start|>user\nWrite f(x, y) that returns 5 times x minus y.<|im_end|>\n<|im_start|>user\n"
ASKED = ("x plus y", "the larger of x and y", "the product of x and y", "the smaller of x and 3")
COLUMNS = (
    "kl_teacher/math,kl_teacher/code,reward/math,reward/code,time/update_s,time/rollout_s,time/score_s,time/train_s"
)


def evaluation(folder, math, code):
    """Rewards of one sample a prompt; of two of the code prompts, the larger or smaller is asked."""
    folder.mkdir(parents=True)
    for domain, rewards in (("math", math), ("code", code)):
        rows = [
            {"id": str(i), "reward": reward, "prompt": f"{SHARED}Write f(x, y) that returns {asked}.<|im_end|>\n"}
            for i, (reward, asked) in enumerate(zip(rewards, ASKED, strict=True))
        ]
        (folder / f"{domain}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    code = {"base": (0, 0, 0, 0), "math-expert": (0, 0, 0, 0), "code-expert": (1, 1, 1, 1), "opd": (1, 0, 1, 0)}
    code |= {"exopd": (1, 1, 1, 0), "exopd-1": (1, 1, 1, 1), "opd-1": (1, 0, 1, 1)}
    for name, rewards in code.items():
        for way in ("", "greedy-"):
            evaluation(tmp_path / "runs" / "eval" / f"{way}{name}-01234567", (1, 0, 1, 0), rewards)
        if "opd" in name:
            lines = [COLUMNS, *(["0.1,0.2,0.5,0.5,3,2,1,2"] * 6), "0.1,,,,,,,"]
            (tmp_path / "runs" / "smollm2" / name).mkdir(parents=True)
            (tmp_path / "runs" / "smollm2" / name / "metrics.csv").write_text("\n".join(lines))
    return tmp_path


def test_the_page_holds_accuracies_by_part_and_paired_differences(runs):
    smollm2.main()
    text = (runs / "docs" / "smollm2.md").read_text()
    assert (runs / "docs" / "smollm2.png").stat().st_size > 0
    assert "{{" not in text
    expert = next(line for line in text.splitlines() if line.startswith("| code expert |"))
    assert [cell.split()[0] for cell in expert.split("|")[2:-1]] == ["—", *["50.0"] * 2, *["100.0"] * 6]
    assert "| ExOPD above OPD | code: larger or smaller | +50.0 [" in text
    assert "| ExOPD above OPD | code: formulas | +0.0 [+0.0, +0.0] |" in text
    assert "| OPD, λ = 1 | 0 | 6 | 12 | 6 | 12 |" in text


def test_a_model_that_was_not_measured_is_named(runs):
    for folder in (runs / "runs" / "eval").glob("greedy-code-expert-*"):
        folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(SystemExit, match=r"greedy-code-expert-\*: 0 folders"):
        smollm2.main()


def test_a_run_with_another_name_is_no_seed(runs):
    evaluation(runs / "runs" / "eval" / "opd-long-01234567", (0, 0, 0, 0), (0, 0, 0, 0))
    assert smollm2.seeds("opd") == {0: "opd", 1: "opd-1"}
