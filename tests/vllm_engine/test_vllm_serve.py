"""The real vLLM server: log-probs are the trainer's, through updates and after a kill; a served teacher's scores."""

import pytest
import torch
from gaps import PROMPTS, change, gap
from serving import FOLDER, ServedProcess

from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.models.scoring import LocalScorer
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.rollouts import Sampling, Vocabulary
from gopd_lightning.rollouts.vllm_server import VLLMServerEngine

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has an environment of its own")
TOLERANCE = 1e-4  # float32 on both sides; a sharp model's log-probs reach -20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = ServedProcess(tmp_path_factory.mktemp("server") / "log.txt")
    yield found
    found.kill()


@pytest.fixture
def served(server, tmp_path):
    return VLLMServerEngine([server.url], str(tmp_path), wait_s=240.0)


def sample(served, base, prompts=PROMPTS, size=None, done=None, stops=(1,), **settings):
    sampling = Sampling(**{"max_new_tokens": 24, **settings})
    vocabulary = Vocabulary(size=size or base.config.vocab_size, stop_ids=stops)
    return served.generate(prompts, sampling, range(len(prompts) * sampling.n), vocabulary, done)


def ids(completions):
    return [list(c.ids) for c in completions]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_logprobs_are_those_of_the_distribution_drawn_from(served, base, temperature):
    served.sync(base, 0)
    assert gap(base, sample(served, base, temperature=temperature), temperature or 1.0) < TOLERANCE


def test_logprobs_follow_updates_of_the_weights_and_of_the_tied_head_alone(served, student):
    for version in range(3):
        served.sync(student, version)
        found = sample(served, student)
        assert gap(student, found) < TOLERANCE
        assert {c.version for c in found} == {version}
        if version == 0:
            change(student)
        else:
            with torch.no_grad():
                student.get_input_embeddings().weight.mul_(1.2)


def test_a_sync_that_did_not_happen_shows_in_the_gap(served, student):
    served.sync(student, 0)
    change(student)
    served.sync(student, 0)  # the version says that nothing changed
    assert gap(student, sample(served, student)) > 0.1


def test_prefixes_of_the_old_weights_are_dropped(served, student):
    long = [[5 + i % 90 for i in range(200)]]  # more than one block of the cache
    for version in range(2):
        served.sync(student, version)
        assert gap(student, sample(served, student, long, max_new_tokens=4), prompts=long) < TOLERANCE
        change(student, 0.1)


def test_equal_prompts_differ_by_their_seeds_and_a_seed_repeats_its_tokens(served, base):
    served.sync(base, 0)
    prompts = [PROMPTS[0]] * 4
    found = sample(served, base, prompts, n=2)
    assert len({tuple(c.ids) for c in found}) == 8
    assert ids(found) == ids(sample(served, base, prompts, n=2)) == ids(sample(served, base, prompts[:1], n=8))


def test_finished_means_a_stop_id_at_the_end_and_nowhere_else(served, base):
    served.sync(base, 0)
    plain = sample(served, base, n=2)
    common = max(range(2, 300), key=lambda i: sum(i in c.ids for c in plain))
    found = sample(served, base, n=2, stops=(1, common))
    assert {c.finished for c in found} == {True, False}
    for c, whole in zip(found, plain, strict=True):
        assert (c.ids[-1] in (1, common)) == c.finished
        assert not {1, common} & set(c.ids[:-1])
        assert list(c.ids) == list(whole.ids)[: len(c.ids)]


def test_padding_rows_of_the_head_are_never_drawn_nor_counted(served, base):
    served.sync(base, 0)
    found = sample(served, base, size=60)
    assert max(i for c in found for i in c.ids) < 60
    assert gap(base, found, size=60) < TOLERANCE
    assert gap(base, sample(served, base)) < TOLERANCE  # and back


def test_a_served_teachers_scores_are_the_local_ones(server, served, student):
    change(student)
    served.sync(student, 0)
    responses = ids(sample(served, student))
    bank = FrozenBank({"teacher": ModelSpec(path=str(FOLDER), url=server.url)}, 306, torch.device("cpu"))
    with torch.no_grad():
        local = LocalScorer(student, student.config.vocab_size).score(PROMPTS, responses)
    flat = torch.tensor([i for response in responses for i in response])
    found = bank.score("teacher", PROMPTS, responses).logprobs_of(flat)
    assert (found - local.logprobs_of(flat)).abs().max() < TOLERANCE


def test_a_server_killed_in_the_middle_is_given_its_weights_again_when_it_is_back(server, served, student):
    change(student)  # so that its folder's weights are wrong
    served.sync(student, 3)
    before = sample(served, student, n=4)
    killed = []

    def kill(number, completion):
        if not killed:
            killed.append(number)
            server.kill()
            server.start()

    found = sample(served, student, n=4, done=kill)
    assert killed
    assert gap(student, found, n=4) < TOLERANCE
    assert ids(found) == ids(before)
