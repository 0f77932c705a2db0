"""One `gopd test` leaves both columns: sampled, and greedy."""

import json

from tiny_command import prepare, write

from gopd_lightning.cli import main


def test_a_model_is_sampled_and_decoded_greedily_in_one_run(tmp_path):
    models = prepare(tmp_path)
    match = {"class_path": "gopd_lightning.verifiers.ExactMatch"}
    callback = {
        "class_path": "study.both_ways.BothWays",
        "init_args": {"sampling": {"n": 2, "max_new_tokens": 8}, "verifiers": {"math": match}},
    }
    sources = [{"path": str(models / "math.jsonl"), "name": "math"}]
    content = {
        "model": {"class_path": "gopd_lightning.Policy", "init_args": {"student": {"path": str(models / "base")}}},
        "data": {"class_path": "gopd_lightning.PromptData", "init_args": {"test": sources, "max_prompt_tokens": 16}},
        "trainer": {"accelerator": "cpu", "default_root_dir": str(tmp_path / "out"), "callbacks": [callback]},
    }
    main(["test", "--config", write(content, tmp_path / "test.yaml")])
    found = {}
    for file in (tmp_path / "out").glob("*/summary.json"):
        sampling = json.loads(file.read_text())["sampling"]
        rows = (file.parent / "math.jsonl").read_text().splitlines()
        found[file.parent.name.partition("-")[0]] = (sampling["temperature"], sampling["n"], len(rows))
    assert found == {"sampled": (1.0, 2, 24), "greedy": (0.0, 1, 12)}
