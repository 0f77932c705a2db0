"""The bank of frozen models: loaded once, adapters share their base, switched without leaks."""

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


def bank(**paths: str) -> FrozenBank:
    specs = {name: ModelSpec(path=path) for name, path in paths.items()}
    return FrozenBank(specs, vocabulary=len(tiny.tokenizer()), device=CPU)


def logprobs(found: FrozenBank, name: str) -> torch.Tensor:
    return found.score(name, PROMPTS, RESPONSES).logprobs_of(IDS)


def test_identical_paths_are_loaded_once(lm_folder):
    found = bank(a=lm_folder, b=lm_folder + "/")
    assert found.loaded == 1
    assert torch.equal(logprobs(found, "a"), logprobs(found, "b"))


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
