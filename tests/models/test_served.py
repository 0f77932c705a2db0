"""A teacher behind a server: its log-probs of the sampled ids, and what it cannot say."""

import pytest
import tiny_fit
import torch
from fake_vllm import FakeVLLM
from gopd_callbacks import Speed
from gopd_callbacks.contest import frozen_contestants

from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.models.served import VLLMTeacher
from gopd_lightning.models.specs import ModelSpec, StudentSpec, TeacherSpec
from gopd_lightning.modules.frozen_scores import FrozenStep
from gopd_lightning.modules.routing import build_routing
from gopd_lightning.records import Completion, Prompt, Row

PROMPTS, RESPONSES = [[4, 5], [6, 7, 8], [4]], [[9, 1], [2], [3, 3, 1]]
EXPECTED = torch.tensor([-i / 8 for response in RESPONSES for i in response])
CPU = torch.device("cpu")


@pytest.fixture
def server():
    found = FakeVLLM()
    yield found
    found.stop()


@pytest.fixture
def routing(server):
    student = StudentSpec(path="student")
    return build_routing(student, [TeacherSpec(domain="math", path="teacher", url=server.url)], None, 1.0)


def test_scores_are_those_of_the_response_tokens_in_row_order(server):
    found = VLLMTeacher(server.url).score(PROMPTS, RESPONSES)
    assert torch.equal(found.logprobs_of(torch.zeros(6)), EXPECTED)


def test_a_server_that_fails_is_asked_again(server):
    server.on_generate = lambda number: 500 if number == 2 else 200
    assert torch.equal(VLLMTeacher(server.url).score(PROMPTS, RESPONSES).logprobs, EXPECTED)


def test_an_answer_about_other_tokens_stops_the_run(server, monkeypatch):
    monkeypatch.setattr(server, "on_inference_v1_generate", lambda body: (200, {"prompt_logprobs": [None] * 5}))
    with pytest.raises(TrainingError, match="log-probs of the tokens sent"):
        VLLMTeacher(server.url).score(PROMPTS, RESPONSES)


def test_the_bank_loads_nothing_for_it_and_cannot_sample_from_it(server):
    bank = FrozenBank({"teacher": ModelSpec(path="nowhere", url=server.url)}, 60, CPU)
    assert (bank.loaded, "teacher" in bank) == (0, True)
    assert torch.equal(bank.score("teacher", PROMPTS, RESPONSES).logprobs, EXPECTED)
    with pytest.raises(InputError, match=f"{server.url}.*cannot be sampled"), bank.using("teacher"):
        pass


def test_its_rows_reach_the_sampled_estimator(server, routing):
    rows = [
        Row(
            prompt=Prompt(uid=i, ids=p, domain="math", dataset="", text=""), completion=Completion(ids=r, finished=True)
        )
        for i, (p, r) in enumerate(zip(PROMPTS, RESPONSES, strict=True))
    ]
    step = FrozenStep(FrozenBank(routing.specs, 60, CPU), routing, rows, hidden=False)
    assert torch.equal(step.of(rows[::-1]).teacher.logprobs, torch.cat(EXPECTED.split([2, 1, 3])[::-1]))
    assert step.scored == []  # nothing ran here


def test_the_full_estimator_is_refused(routing):
    with pytest.raises(InputError, match="teacher:math.*estimator: sampled"):
        FrozenStep(FrozenBank(routing.specs, 60, CPU), routing, [], hidden=True)


def test_another_temperature_is_refused(routing):
    with pytest.raises(InputError, match="teacher:math.*frozen_temperature"):
        FrozenBank(routing.specs, 60, CPU, temperature=0.5)


def test_a_student_elsewhere_is_refused():
    with pytest.raises(InputError, match="student.url"):
        StudentSpec(path="student", url="http://host:8000")


@pytest.fixture
def merge(tmp_path):
    """The tiny merge, whose code teacher is on a server: only its configuration and tokenizer are here."""
    tiny_fit.prepare(tmp_path)
    (tmp_path / "code" / "model.safetensors").unlink()
    return tmp_path


def teachers(folder, server):
    return [
        TeacherSpec(domain="math", path=str(folder / "math")),
        TeacherSpec(domain="code", path=str(folder / "code"), url=server.url),
    ]


def test_a_fit_learns_from_a_teacher_that_is_here_and_from_one_that_is_served(merge, server):
    module = tiny_fit.build(merge, teachers=teachers(merge, server))
    found = tiny_fit.fit(merge, module, max_steps=2, callbacks=(Speed(),))
    assert frozen_contestants(module) == ["base", "teacher:math"]
    assert module.frozen.loaded == 2  # the math teacher and the reference
    for scores in found["scores"].values():
        assert torch.isfinite(scores["teacher"]).all()
    served = [scores["teacher"] for scores in found["scores"].values() if (8 * scores["teacher"] % 1 == 0).all()]
    assert len(served) == 8  # as many rows as the server has told apart from the others by its eighths
    assert server.asked["/inference/v1/generate"] == 8


def test_the_full_estimator_is_refused_before_anything_loads(merge, server):
    with pytest.raises(InputError, match="estimator: sampled"):
        tiny_fit.build(merge, teachers=teachers(merge, server), estimator="full")
