import json
import logging
import time
from types import SimpleNamespace

import pytest
from word_tokenizer import TEMPLATE, make_tokenizer

from gopd_lightning.data import PromptData, PromptEncoder, SourceSpec
from gopd_lightning.errors import InputError

WORD = make_tokenizer().get_vocab()


def row(prompt="one two", domain="math", **more):
    return {"prompt": prompt, "domain": domain, "answer": "7", **more}


@pytest.fixture
def data(encoder):
    def make(*paths, encoders=None, domains=None, rank=0, world_size=1, stage="fit", **settings):
        split = {"fit": "train", "validate": "val"}.get(stage, stage)
        specs = [SourceSpec(path=path) if isinstance(path, str) else path for path in paths]
        module = PromptData(**{split: specs} | settings)
        serves = SimpleNamespace(encoders=encoders or {"student": encoder}, domains=domains)
        module.trainer = SimpleNamespace(
            lightning_module=serves, global_rank=rank, world_size=world_size, limit_train_batches=1.0
        )
        return module

    return make


def test_rows_become_prompts(data, write):
    path = write("math.jsonl", row(), row("three", answer=3))
    module = data(path)
    module.setup("fit")
    first, second = module.prompts["train"]
    assert (first.text, first.ids, first.domain, first.dataset) == ("one two", [13, 14], "math", "math")
    assert (second.answer, second.uid, second.source) == ("3", 1, f"{path} row 2")
    assert first.response is None


def test_uids_count_all_rows_of_a_split_dropped_ones_too(data, write):
    paths = [write("x.jsonl", row(), row("a b c d"), row()), write("y.jsonl", row("a b c d"), row())]
    module = data(*paths, max_prompt_tokens=3)
    module.setup("fit")
    assert [prompt.uid for prompt in module.prompts["train"]] == [0, 2, 4]
    assert module.dropped == {"x": 1, "y": 1}


def test_dropped_prompts_are_reported_in_one_line(data, write, caplog):
    module = data(write("x.jsonl", row(), row("a b c d")), max_prompt_tokens=3)
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        module.setup("fit")
    assert caplog.messages == ["train: dropped prompts longer than 3 tokens: x 1"]


def test_nothing_dropped_is_nothing_said(data, write, caplog):
    module = data(write("x.jsonl", row()))
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        module.setup("fit")
    assert caplog.messages == []
    assert module.dropped == {}


def test_each_model_reads_messages_its_own_way(data, write, tokenizer, encoder):
    silent = PromptEncoder(tokenizer, {"enable_thinking": False}, "teacher math")
    same = PromptEncoder(tokenizer, {}, "teacher code")
    module = data(
        write("x.jsonl", row([{"role": "user", "content": "one"}]), row("one")),
        encoders={"student": encoder, "math": silent, "code": same},
    )
    module.setup("fit")
    chat, text = module.prompts["train"]
    assert chat.ids_for("math") == [*chat.ids, WORD["silent"]]
    assert chat.ids_for("code") == chat.ids
    assert set(chat.frozen_ids) == {"math"}
    assert text.frozen_ids == {}


def test_prompt_too_long_for_any_model_is_dropped(data, write, encoder, tokenizer):
    silent = PromptEncoder(tokenizer, {"enable_thinking": False}, "teacher")
    path = write("x.jsonl", row([{"role": "user", "content": "one"}]), row("one"))
    module = data(path, encoders={"student": encoder, "teacher": silent}, max_prompt_tokens=6)
    module.setup("fit")
    assert [prompt.text for prompt in module.prompts["train"]] == ["one"]


def test_source_that_loses_all_its_rows_is_refused(data, write):
    module = data(write("x.jsonl", row("a b c")), max_prompt_tokens=2)
    with pytest.raises(InputError, match=r"x\.jsonl: all 1 prompts .*max_prompt_tokens = 2"):
        module.setup("fit")


def test_prompt_of_the_very_limit_is_kept(data, write):
    module = data(write("x.jsonl", row("a b c")), max_prompt_tokens=3)
    module.setup("fit")
    assert module.dropped == {}


def test_unknown_domain_names_file_row_and_the_known(data, write):
    module = data(write("x.jsonl", row(), row(domain="law")), domains={"math", "code"})
    with pytest.raises(InputError, match=r"x\.jsonl row 2: unknown domain 'law'; the model knows code, math"):
        module.setup("fit")


def test_any_domain_will_do_for_a_module_that_names_none(data, write):
    module = data(write("x.jsonl", row(domain="law")), domains=None)
    module.setup("fit")
    assert module.prompts["train"][0].domain == "law"


@pytest.mark.parametrize("limit", [0, -1])
def test_prompt_limit_that_leaves_no_room_is_refused(data, write, limit):
    with pytest.raises(InputError, match=rf"data\.init_args\.max_prompt_tokens = {limit} "):
        data(write("x.jsonl", row()), max_prompt_tokens=limit).setup("fit")


@pytest.mark.parametrize(
    ("stage", "split"), [("fit", "train"), ("validate", "val"), ("test", "test"), ("predict", "predict")]
)
def test_stage_without_sources_names_its_key(data, stage, split):
    with pytest.raises(InputError, match=rf"data\.init_args\.{split}: no source given"):
        data().setup(stage)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_only_what_a_stage_needs_is_read(data, write, stage):
    module = data(write("x.jsonl", row()), stage=stage)
    module.specs["train"] = [SourceSpec(path="absent.jsonl")]
    module.setup(stage)
    assert list(module.prompts) == [{"validate": "val"}.get(stage, stage)]


def test_settings_that_loaders_refuse_are_refused_by_setup(data, write):
    path = write("x.jsonl", row())
    with pytest.raises(InputError, match="prompts_per_step = 3 must be a positive multiple of the 2"):
        data(path, prompts_per_step=3, world_size=2).setup("fit")
    with pytest.raises(InputError, match="eval_batch_size = 0"):
        data(path, eval_batch_size=0, stage="test").setup("test")


def test_responses_are_tokenised_when_every_row_has_one(data, write):
    module = data(write("x.jsonl", row(response="three"), row(response="a")))
    module.setup("fit")
    assert [prompt.response for prompt in module.prompts["train"]] == [[WORD["three"], 2], [WORD["a"], 2]]


def test_responses_of_some_rows_only_are_left_alone(data, write):
    module = data(write("x.jsonl", row(response="three"), row()))
    module.setup("fit")
    assert [prompt.response for prompt in module.prompts["train"]] == [None, None]


def test_weights_reach_the_loader(data, write):
    specs = [
        SourceSpec(path=write("x.jsonl", row()), weight=3),
        SourceSpec(path=write("y.jsonl", row(domain="code"))),
    ]
    module = data(*specs, prompts_per_step=8)
    module.setup("fit")
    domains = [prompt.domain for prompt in module.train_dataloader().prompts_at(0)]
    assert (domains.count("math"), domains.count("code")) == (6, 2)


def test_loaders_take_the_rank_of_the_trainer(data, write):
    path = write("x.jsonl", *(row() for _ in range(8)))
    ranks = [data(path, rank=rank, world_size=2, prompts_per_step=8) for rank in range(2)]
    for module in ranks:
        module.setup("fit")
    halves = [[p.uid for batch in module.train_dataloader() for p in batch.prompts] for module in ranks]
    assert sorted(halves[0] + halves[1]) == list(range(8))
    assert len(halves[0]) == len(halves[1]) == 4


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluation_loaders_serve_their_split(data, write, stage):
    module = data(write("x.jsonl", row(), row(), row()), stage=stage, eval_batch_size=2)
    module.setup(stage)
    loader = getattr(module, {"validate": "val"}.get(stage, stage) + "_dataloader")()
    assert [len(batch.prompts) for batch in loader] == [2, 1]


def test_evaluation_files_called_alike_need_names(data, write):
    paths = [write("aime24/test.jsonl", row()), write("aime25/test.jsonl", row())]
    with pytest.raises(InputError, match=r"data\.init_args\.test: .*both called 'test'; give each a `name`"):
        data(*paths, stage="test").setup("test")
    named = [SourceSpec(path=path, name=f"aime{i}") for i, path in enumerate(paths)]
    data(*named, stage="test").setup("test")


def test_nothing_of_the_datamodule_goes_into_checkpoints(data, write):
    module = data(write("x.jsonl", row()))
    assert (module.hparams, module.state_dict()) == ({}, {})


def test_eighty_thousand_rows_are_ready_in_seconds(data, tmp_path):
    path = tmp_path / "many.jsonl"
    line = json.dumps(row("one two three " * 10, response="a b c " * 10))
    path.write_text(f"{line}\n" * 80_000)
    module = data(str(path))
    start = time.perf_counter()
    module.setup("fit")
    elapsed = time.perf_counter() - start
    assert elapsed < 30  # a few seconds on idle cores


def test_chat_template_comes_from_the_tokenizer_not_from_us(data, write):
    bare = PromptEncoder(make_tokenizer(), None, "student")
    templated = PromptEncoder(make_tokenizer(chat_template=TEMPLATE), None, "student")
    path = write("x.jsonl", row([{"role": "user", "content": "one"}]))
    data(path, encoders={"student": templated}).setup("fit")
    with pytest.raises(InputError, match=r"x\.jsonl row 1: student's tokenizer has no chat template"):
        data(path, encoders={"student": bare}).setup("fit")
