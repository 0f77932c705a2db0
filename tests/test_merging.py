"""Merged weights: what they are, what is refused, and how little memory it takes."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gopd_lightning import merging
from gopd_lightning.cli import main
from gopd_lightning.errors import InputError
from gopd_lightning.merging import merge


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "math", "code")):
        tiny.model(found / name, seed=seed)
    return found


def state(path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(path).state_dict())


def paths(folder, *names):
    return [str(folder / name) for name in names]


def expected(folder, **weights):
    states = {name: state(folder / name) for name in weights}
    return {key: sum(w * states[name][key] for name, w in weights.items()) for key in next(iter(states.values()))}


def same(found, wanted, **tolerance):
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], **tolerance)


def test_models_are_averaged_evenly_unless_weights_are_given(folder, tmp_path):
    merge(paths(folder, "math", "code"), str(tmp_path / "even"))
    same(state(tmp_path / "even"), expected(folder, math=0.5, code=0.5))
    merge(paths(folder, "math", "code"), str(tmp_path / "given"), weights=[0.3, 0.7])
    same(state(tmp_path / "given"), expected(folder, math=0.3, code=0.7))


def test_scale_goes_past_the_models_away_from_their_base(folder, tmp_path):
    merge(paths(folder, "math", "code"), str(tmp_path / "expo"), base=str(folder / "base"), scale=1.5)
    same(state(tmp_path / "expo"), expected(folder, math=0.75, code=0.75, base=-0.5), atol=1e-6, rtol=1e-5)


def test_a_model_alone_comes_out_bit_for_bit_with_its_tokenizer(folder, tmp_path):
    merge(paths(folder, "math"), str(tmp_path / "copy"))
    found = load_file(tmp_path / "copy" / "model.safetensors")
    given = load_file(folder / "math" / "model.safetensors")
    assert all(torch.equal(found[name], given[name]) for name in given)
    tokens = [
        AutoTokenizer.from_pretrained(place)("Q1+2=")["input_ids"] for place in (tmp_path / "copy", folder / "math")
    ]
    assert tokens[0] == tokens[1]


def test_shards_are_merged_one_at_a_time_however_each_model_is_split(folder, tmp_path, monkeypatch):
    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(folder / "math").save_pretrained(sharded, max_shard_size="20KB")
    files = sorted(path.name for path in sharded.glob("*.safetensors"))
    assert len(files) > 2
    largest = []
    save = merging.save_file

    def watched(tensors, *args, **kwargs):
        largest.append(sum(tensor.numel() for tensor in tensors.values()))
        save(tensors, *args, **kwargs)

    monkeypatch.setattr(merging, "save_file", watched)
    merge([str(sharded), str(folder / "code")], str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == files
    assert max(largest) < sum(largest) / 2
    same(state(tmp_path / "out"), expected(folder, math=0.5, code=0.5))


def test_bfloat16_models_are_added_in_float32(folder, tmp_path):
    for name in ("math", "code"):
        AutoModelForCausalLM.from_pretrained(folder / name).bfloat16().save_pretrained(tmp_path / name)
    merge(paths(tmp_path, "math", "code"), str(tmp_path / "out"), weights=[0.3, 0.7])
    found = load_file(tmp_path / "out" / "model.safetensors")
    parts = [load_file(tmp_path / name / "model.safetensors") for name in ("math", "code")]
    for name, tensor in found.items():
        exact = parts[0][name].double() * 0.3 + parts[1][name].double() * 0.7
        torch.testing.assert_close(tensor.double(), exact, rtol=1.001 * 2**-8, atol=1e-6)  # rounded once, at the end


def adapter(folder, name, seed, rank, targets, **config):
    torch.manual_seed(seed)
    made = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder / "base"),
        LoraConfig(r=rank, lora_alpha=16, target_modules=targets, init_lora_weights=False, **config),
    )
    made.save_pretrained(folder / name)


@pytest.fixture(scope="module")
def adapters(folder):
    adapter(folder, "lora-math", 1, 4, ["q_proj", "v_proj"])
    adapter(folder, "lora-code", 2, 8, ["v_proj", "down_proj"], use_rslora=True)
    return paths(folder, "lora-math", "lora-code")


def whole(folder, name):
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    return (
        PeftModel.from_pretrained(base, folder / name if isinstance(name, str) else name)
        .merge_and_unload()
        .state_dict()
    )


def test_adapters_merge_into_one_whose_change_is_the_sum_of_theirs(folder, adapters, tmp_path):
    merge(adapters, str(tmp_path / "both"), weights=[0.25, 0.75], scale=1.5)
    base, math, code = state(folder / "base"), whole(folder, "lora-math"), whole(folder, "lora-code")
    wanted = {key: base[key] + 1.5 * (0.25 * (math[key] - base[key]) + 0.75 * (code[key] - base[key])) for key in base}
    same(dict(whole(folder, tmp_path / "both")), wanted, atol=1e-5, rtol=1e-4)
    assert json.loads((tmp_path / "both" / "adapter_config.json").read_text())["r"] == 12


def refused(*args, **kwargs):
    with pytest.raises(InputError) as error:
        merge(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_merged_is_refused_in_one_line_and_leaves_nothing(folder, adapters, tmp_path):
    out = str(tmp_path / "out")
    two = paths(folder, "math", "code")
    assert "add up to 0.9" in refused(two, out, weights=[0.5, 0.4])
    assert "has 1 numbers for 2 models" in refused(two, out, weights=[1.0])
    assert "needs --base" in refused(two, out, scale=1.5)
    assert "at least one model" in refused([], out)
    assert "is not a folder with a model" in refused([str(tmp_path / "none")], out)
    assert "models of one kind" in refused([adapters[0], two[0]], out)
    tiny.model(tmp_path / "wide", hidden=64)
    assert "only models of one shape merge" in refused([two[0], str(tmp_path / "wide")], out)
    adapter(folder, "lora-dora", 3, 4, ["q_proj"], use_dora=True)
    assert "only plain LoRA adapters merge, and its use_dora is True" in refused([str(folder / "lora-dora")], out)
    assert list(tmp_path.iterdir()) == [tmp_path / "wide"]


def test_a_head_that_only_one_model_has_is_not_lost(folder, tmp_path):
    untied = AutoModelForCausalLM.from_pretrained(folder / "code")
    untied.config.tie_word_embeddings = False
    untied.lm_head.weight = torch.nn.Parameter(torch.randn_like(untied.lm_head.weight))
    untied.save_pretrained(tmp_path / "untied")
    line = refused([str(folder / "math"), str(tmp_path / "untied")], str(tmp_path / "out"))
    assert "lm_head.weight is in one of them only" in line


def test_the_command_merges(folder, tmp_path):
    out = tmp_path / "merged"
    main(["merge", *paths(folder, "math", "code"), "--weights", "[0.5, 0.5]", "--out", str(out)])
    same(state(out), expected(folder, math=0.5, code=0.5))
    assert not [path for path in Path(tmp_path).iterdir() if path != out]
