"""Weights laid out for decoding: the same numbers, only inside, only where it gains."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from gopd_lightning.rollouts import Sampling, TransformersEngine, Vocabulary, thin_products
from gopd_lightning.rollouts.thin_products import ThinProducts


class Doubled(nn.Linear):
    """Does more than multiply."""

    def forward(self, hidden):
        return 2 * super().forward(hidden)


def model(dtype=torch.float32, bias=False):
    torch.manual_seed(0)
    layers = {"large": nn.Linear(256, 512, bias=bias), "small": nn.Linear(512, 16), "doubled": Doubled(256, 512)}
    return nn.ModuleDict(layers).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 256), (3, 1, 256), (64, 256), (300, 256)])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_those_of_the_layer(dtype, shape, bias):
    layer = model(dtype, bias)["large"]
    hidden = torch.randn(shape).to(dtype)
    plain = layer(hidden)
    with ThinProducts(layer).used():
        found = layer(hidden)
    assert found.shape == plain.shape
    torch.testing.assert_close(found, plain, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=1e-5)


def test_only_large_plain_layers_are_changed_and_only_inside():
    lm = model()
    with ThinProducts(lm).used():
        assert [name for name, layer in lm.items() if "forward" in vars(layer)] == ["large"]
    assert not any("forward" in vars(layer) for layer in lm.values())


def test_hidden_states_of_another_dtype_go_the_plain_way():
    layer = model(torch.bfloat16)["large"]
    with ThinProducts(layer).used(), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 256)).dtype == torch.bfloat16


def lm():
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**shape, vocab_size=600, initializer_range=0.1)).eval()


def sampled(engine):
    vocabulary = Vocabulary(size=600, stop_ids=(1,))
    return engine.generate([[5, 6, 7], [8, 9]], Sampling(n=2, max_new_tokens=8), range(4), vocabulary)


def test_an_engine_samples_as_without_and_follows_an_update(monkeypatch):
    student, engine = lm(), TransformersEngine()
    for version in range(2):
        engine.sync(student, version)
        found = sampled(engine)
        with monkeypatch.context() as patch:
            patch.setattr(thin_products, "_gains", lambda weight: False)
            plain = TransformersEngine()
            plain.sync(student, version)
            expected = sampled(plain)
        assert [c.ids for c in found] == [c.ids for c in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        with torch.no_grad():
            for weight in student.parameters():
                weight.add_(0.05 * torch.randn_like(weight))


def test_a_sleeping_engine_keeps_no_copy():
    engine = TransformersEngine()
    engine.sync(lm(), 0)
    sampled(engine)
    assert engine._products._packed
    engine.sleep()
    assert engine._products is None
