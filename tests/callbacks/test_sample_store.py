"""Samples on disk: nothing finished is lost, nothing is taken for something else."""

import json
from dataclasses import replace

from gopd_callbacks.sample_store import SampleStore
from tiny_run import row

from gopd_lightning.records import Verdict


def records(folder, name="math.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def rows(*pairs):
    found = [row(number, sample) for number, sample in pairs]
    for one in found:
        one.prompt = replace(one.prompt, id=f"p{one.prompt.uid}")
    return found


def test_a_sample_is_found_again_with_its_length_and_end(tmp_path):
    (one,) = rows((4, 1))
    store = SampleStore(tmp_path, 0)
    store.add([one], seconds=2.0)
    store.close()
    again = SampleStore(tmp_path, 0).known(one.prompt, 1, 9)
    assert (again.text, again.sample, len(again.completion.ids)) == (one.text, 1, 3)
    assert (again.completion.finished, again.completion.version, again.verdict) == (False, 9, None)


def test_only_the_sample_of_this_very_prompt_is_known(tmp_path):
    (one,) = rows((4, 1))
    store = SampleStore(tmp_path, 0)
    store.add([one])
    assert store.known(one.prompt, 0, 0) is None
    assert store.known(replace(one.prompt, id="p5"), 1, 0) is None
    assert store.known(replace(one.prompt, dataset="code"), 1, 0) is None
    assert store.known(replace(one.prompt, ids=[1, 2, 3]), 1, 0) is None


def test_a_torn_last_line_costs_that_sample_only(tmp_path):
    one, two, three = rows((1, 0), (2, 0), (3, 0))
    store = SampleStore(tmp_path, 0)
    store.add([one, two])
    store.close()
    file = tmp_path / "part-rank0.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    store = SampleStore(tmp_path, 0)
    assert store.known(one.prompt, 0, 0) is not None
    assert store.known(two.prompt, 0, 0) is None
    store.add([three])
    store.close()
    store = SampleStore(tmp_path, 0)
    assert [store.known(r.prompt, 0, 0) is not None for r in (one, two, three)] == [True, False, True]


def test_ranks_are_put_together_in_the_order_of_the_prompts(tmp_path):
    pairs = rows((2, 0), (2, 1), (1, 0), (1, 1))
    for rank, own in enumerate((pairs[:2], pairs[2:])):
        store = SampleStore(tmp_path, rank)
        store.add(own, seconds=1.5)
        for one in own:
            one.verdict = Verdict(reward=0.0, answer="x", reason="wrong", vote="x")
        store.add(own)
        store.close()
    prompts = [pairs[2].prompt, pairs[0].prompt]
    assert store.finish(prompts, 2) == {"math": "math.jsonl"}
    found = records(tmp_path)
    assert [(r["id"], r["sample"]) for r in found] == [("p1", 0), ("p1", 1), ("p2", 0), ("p2", 1)]
    assert {(r["reason"], r["seconds"]) for r in found} == {("wrong", 1.5)}
    assert [file.name for file in tmp_path.iterdir()] == ["math.jsonl"]


def test_samples_beyond_k_are_kept_apart_and_found_again(tmp_path):
    many = rows((1, 0), (1, 1), (1, 2))
    store = SampleStore(tmp_path, 0)
    store.add(many)
    store.finish([many[0].prompt], 3)
    store = SampleStore(tmp_path, 0)
    store.finish([many[0].prompt], 1)
    assert [r["sample"] for r in records(tmp_path)] == [0]
    store = SampleStore(tmp_path, 0)
    assert store.known(many[0].prompt, 2, 0) is not None
    store.finish([many[0].prompt], 3)
    assert [r["sample"] for r in records(tmp_path)] == [0, 1, 2]
    assert records(tmp_path, "unused.jsonl") == []


def test_text_that_is_not_unicode_is_written_and_read(tmp_path):
    (one,) = rows((1, 0))
    one.text = "half \ud83d, whole \U0001f600, ünïcode"
    store = SampleStore(tmp_path, 0)
    store.add([one])
    store.finish([one.prompt], 1)
    assert records(tmp_path)[0]["response"] == one.text
