"""The bank of frozen models: loaded once, adapters share their base, switched without leaks."""

import weakref

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from gopd_lightning.errors import InputError
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.models.loading import load_student
from gopd_lightning.models.specs import ModelSpec, StudentSpec

PROMPTS, RESPONSES = [[4, 5, 6], [7, 8]], [[13, 1], [14, 15, 16, 1]]
IDS = torch.tensor([i for r in RESPONSES for i in r])
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def adapters(lm_folder, tmp_path_factory):
    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(lm_folder)
        model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
        folder = tmp_path_factory.mktemp(f"adapter{seed}")
        model.save_pretrained(folder)
        folders.append(str(folder))
    return folders


def bank(max_loaded: int | None = None, **paths: str) -> FrozenBank:
    specs = {name: ModelSpec(path=path) for name, path in paths.items()}
    return FrozenBank(specs, vocabulary=len(tiny.tokenizer()), device=CPU, max_loaded=max_loaded)


def logprobs(found: FrozenBank, name: str) -> torch.Tensor:
    return found.score(name, PROMPTS, RESPONSES).logprobs_of(IDS)


def test_identical_paths_are_loaded_once(lm_folder):
    found = bank(a=lm_folder, b=lm_folder + "/")
    assert found.loaded == 1
    assert torch.equal(logprobs(found, "a"), logprobs(found, "b"))


def test_the_trainers_precision_is_not_the_frozen_models(lm_folder):
    found = bank(a=lm_folder)
    plain = logprobs(found, "a")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(logprobs(found, "a"), plain)


def test_adapters_share_their_base_and_keep_their_own_scores(lm_folder, adapters):
    found = bank(base=lm_folder, one=adapters[0], two=adapters[1])
    assert found.loaded == 1
    for name, folder in (("one", adapters[0]), ("two", adapters[1]), ("base", None), ("one", adapters[0])):
        plain = AutoModelForCausalLM.from_pretrained(lm_folder)
        model = PeftModel.from_pretrained(plain, folder) if folder else plain
        with torch.no_grad():
            log_p = model(torch.tensor([PROMPTS[1] + RESPONSES[1]])).logits[0].log_softmax(-1)
        expected = torch.stack([log_p[1 + t, i] for t, i in enumerate(RESPONSES[1])])
        torch.testing.assert_close(logprobs(found, name)[2:], expected, atol=1e-5, rtol=1e-5)


def test_models_that_rest_leave_memory_and_come_back_with_the_same_scores(lm_folder, adapters, tmp_path):
    paths = {"a": lm_folder, "b": tiny.model(tmp_path / "b", seed=1), "c": tiny.model(tmp_path / "c", seed=2)}
    paths["on_a"] = adapters[0]
    everything, one = bank(**paths), bank(max_loaded=1, **paths)
    assert (everything.loaded, one.loaded) == (3, 1)
    for name in ("a", "b", "on_a", "a", "c", "b"):
        with one.using(name) as model:
            seen = weakref.ref(model)
        del model
        assert torch.equal(logprobs(one, name), logprobs(everything, name))
        assert one.loaded == 1
    logprobs(one, "c")
    assert seen() is None


def test_the_model_that_has_rested_longest_leaves(lm_folder, tmp_path, monkeypatch):
    paths = {"a": lm_folder, "b": tiny.model(tmp_path / "b", seed=1), "c": tiny.model(tmp_path / "c", seed=2)}
    found = bank(max_loaded=2, **paths)
    loads = []
    plain = FrozenBank._load
    monkeypatch.setattr(FrozenBank, "_load", lambda self, path, dtype: loads.append(path) or plain(self, path, dtype))
    for name in ("a", "b", "a", "c", "a", "b"):
        logprobs(found, name)
    assert loads == [paths["c"], paths["b"]]


def test_a_bank_of_no_models_is_refused(lm_folder):
    with pytest.raises(InputError, match="at least 1"):
        bank(max_loaded=0, a=lm_folder)


def test_a_teacher_may_read_another_prompt_than_the_student(lm_folder):
    found = bank(a=lm_folder)
    other = [[9, *prompt, 10, 11] for prompt in PROMPTS]
    scored = found.score("a", other, RESPONSES).logprobs_of(IDS)
    alone = [found.score("a", [p], [r]).logprobs_of(torch.tensor(r)) for p, r in zip(other, RESPONSES, strict=True)]
    torch.testing.assert_close(scored, torch.cat(alone), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scored, logprobs(found, "a"))


@pytest.mark.parametrize("name", ["base", "one"])
def test_rows_of_a_prompt_share_it_under_adapters_too(lm_folder, adapters, name):
    found = bank(base=lm_folder, one=adapters[0])
    prompts, responses = [PROMPTS[0]] * 3, [*RESPONSES, [20, 1]]
    alone = [found.score(name, [p], [r]).logprobs_of(torch.tensor(r)) for p, r in zip(prompts, responses, strict=True)]
    together = found.score(name, prompts, responses).logprobs_of(torch.tensor([i for r in responses for i in r]))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_nothing_in_the_bank_is_trained_or_registered(lm_folder, adapters):
    found = bank(base=lm_folder, one=adapters[0])
    assert not isinstance(found, torch.nn.Module)
    for name in ("one", "base"):
        with found.using(name) as model:
            assert not any(p.requires_grad for p in model.parameters())
        assert not logprobs(found, name).requires_grad


def test_student_may_be_a_new_or_a_given_adapter(lm_folder, adapters):
    new = load_student(StudentSpec(path=lm_folder, lora={"r": 2, "target_modules": ["q_proj"]}))
    given = load_student(StudentSpec(path=adapters[0]))
    for model in (new, given):
        trained = [n for n, p in model.named_parameters() if p.requires_grad]
        assert trained
        assert all("lora" in n for n in trained)
    with pytest.raises(InputError, match="not both"):
        load_student(StudentSpec(path=adapters[0], lora={"r": 2}))
