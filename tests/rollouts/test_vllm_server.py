"""The engine on vLLM servers against stand-ins: weights and stamps, requests of lost servers, clear refusals."""

import threading
import time

import pytest
import torch
from fake_vllm import FakeVLLM
from torch import nn

from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.rollouts import RolloutEngine, Sampling, Vocabulary
from gopd_lightning.rollouts.vllm_server import VLLMServerEngine

VOCABULARY = Vocabulary(size=60, stop_ids=(1,))
PROMPTS = [[5, 6], [7], [8, 9, 10]]


@pytest.fixture
def servers():
    found = [FakeVLLM(), FakeVLLM()]
    yield found
    for server in found:
        server.stop()


@pytest.fixture
def engine(servers, tmp_path):
    return VLLMServerEngine([server.url for server in servers], str(tmp_path), wait_s=2.0, concurrency=2)


@pytest.fixture
def student():
    lm = nn.Linear(2, 1, bias=False)
    return set_to(lm, 3)


def set_to(lm, total):
    with torch.no_grad():
        lm.weight.copy_(torch.tensor([[1.0, total - 1.0]]))
    return lm


def sample(engine, n=4, done=None, **settings):
    sampling = Sampling(n=n, **{"max_new_tokens": 4, **settings})
    return engine.generate(PROMPTS, sampling, range(len(PROMPTS) * n), VOCABULARY, done)


def ids(total, n=4):
    """What the stand-ins answer under weights of this sum."""
    return [[sum(PROMPTS[i // n]) + 2, i + 2, total + 2, 1] for i in range(len(PROMPTS) * n)]


def test_completions_come_in_order_with_what_the_server_said(engine, student):
    engine.sync(student, 7)
    told = {}
    found = sample(engine, done=lambda i, c: told.update({i: c}))
    assert isinstance(engine, RolloutEngine)
    assert [list(c.ids) for c in found] == ids(3)
    assert [list(c.logprobs) for c in found] == [[-i / 8 for i in one] for one in ids(3)]
    assert {(c.finished, c.version) for c in found} == {(True, 7)}
    assert [told[i] for i in range(len(found))] == found
    assert not any(c.finished for c in sample(engine, max_new_tokens=2))


def test_requests_are_spread_over_the_servers(engine, servers, student):
    for server in servers:
        server.on_generate = lambda number: time.sleep(0.01) or 200
    engine.sync(student, 0)
    sample(engine)
    assert all(server.asked["/inference/v1/generate"] >= 3 for server in servers)


def test_every_version_is_loaded_once_with_its_prefixes_dropped(engine, servers, student, tmp_path):
    for version, total in ((0, 3), (0, 3), (1, 4)):
        engine.sync(set_to(student, total), version)
        assert [list(c.ids) for c in sample(engine)] == ids(total)
    for server in servers:
        asked = server.asked
        assert asked["gopd_load_weights"] == asked["/reset_prefix_cache"] == asked["/resume"] == 2
        assert asked["/pause?mode=abort"] == 2
        assert torch.equal(server.loaded[-1]["weight"], student.weight)
    assert [file.name.split("-")[2] for file in tmp_path.iterdir()] == ["1"]


def test_a_model_in_the_place_of_one_that_is_gone_is_another(engine):
    for total in range(3, 9):  # baselines come and go at one version
        engine.sync(set_to(nn.Linear(2, 1, bias=False), total), 0)
        assert [list(c.ids) for c in sample(engine)] == ids(total)


def test_weights_are_written_in_the_dtype_asked_for(servers, student, tmp_path):
    engine = VLLMServerEngine([servers[0].url], str(tmp_path), dtype="bfloat16")
    engine.sync(student, 0)
    assert servers[0].loaded[0]["weight"].dtype == torch.bfloat16


def test_requests_of_a_lost_server_go_to_the_others(engine, servers, student):
    engine.sync(student, 0)
    first = servers[0]

    def die(number):
        threading.Thread(target=first.stop).start()
        return 0

    first.on_generate = die
    assert [list(c.ids) for c in sample(engine)] == ids(3)
    first.stop = lambda: None
    engine.sync(set_to(student, 4), 1)  # without it
    assert [list(c.ids) for c in sample(engine)] == ids(4)


def test_a_server_that_came_back_is_given_its_weights_again(servers, student, tmp_path):
    engine = VLLMServerEngine([servers[0].url], str(tmp_path), wait_s=10.0)
    engine.sync(student, 5)
    servers[0].on_generate = lambda number: servers[0].restart() or 0 if number == 3 else 200
    found = sample(engine)
    assert [list(c.ids) for c in found] == ids(3)
    assert servers[0].asked["gopd_load_weights"] == 2


def test_what_other_weights_gave_is_thrown_away(servers, student, tmp_path):
    engine = VLLMServerEngine([servers[0].url], str(tmp_path))
    engine.sync(student, 5)
    sample(engine)
    servers[0].restart()  # between two steps: no connection breaks
    assert [list(c.ids) for c in sample(engine)] == ids(3)


def test_no_server_is_one_line_with_its_url_within_the_limit(student, tmp_path):
    dead = FakeVLLM()
    dead.stop()
    began = time.monotonic()
    with pytest.raises(TrainingError, match=f"no answer within 1 s.*{dead.url}.*Start it"):
        VLLMServerEngine([dead.url], str(tmp_path), wait_s=1.0).sync(student, 0)
    assert time.monotonic() - began < 6


def test_servers_that_are_lost_for_too_long_stop_the_run(engine, servers, student):
    engine.sync(student, 0)
    for server in servers:
        server.on_weight_info = lambda body: (503, {})
        server.on_generate = lambda number: 500
    with pytest.raises(TrainingError, match="no answer within 2 s"):
        sample(engine)


def test_a_request_that_no_server_can_bear_stops_the_run(engine, servers, student):
    engine.sync(student, 0)
    for server in servers:
        server.on_generate = lambda number: 500
    with pytest.raises(TrainingError, match="failed 5 times.*too bad"):
        sample(engine, n=1)


def test_a_cache_that_cannot_be_dropped_stops_the_run(engine, servers, student):
    servers[0].clean = False
    with pytest.raises(TrainingError, match="prefixes"):
        engine.sync(student, 0)


def test_weights_that_the_server_cannot_take_stop_the_run_at_once(engine, servers, student):
    servers[1].load_error = "no such layer"
    with pytest.raises(TrainingError, match="did not take the weights: no such layer"):
        engine.sync(student, 0)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [("mode", "raw_logprobs", "--logprobs-mode processed_logprobs"), ("extension", False, "VLLM_SERVER_DEV_MODE=1")],
)
def test_a_server_that_was_started_otherwise_is_told_how(engine, servers, student, name, value, hint):
    setattr(servers[1], name, value)
    with pytest.raises(InputError, match=hint):
        engine.sync(student, 0)


def test_a_prompt_without_room_is_an_error_that_names_the_setting(engine, student):
    engine.sync(student, 0)
    with pytest.raises(InputError, match="--max-model-len 64.*65 tokens"):
        sample(engine, max_new_tokens=62)


def test_a_callers_error_comes_through(engine, student):
    engine.sync(student, 0)

    def leave(number, completion):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sample(engine, done=leave)
    assert [list(c.ids) for c in sample(engine)] == ids(3)


@pytest.mark.parametrize("urls", [[], ["localhost:8000"]])
def test_urls_that_are_none_are_refused(urls, tmp_path):
    with pytest.raises(InputError, match="http://host:8000"):
        VLLMServerEngine(urls, str(tmp_path))
