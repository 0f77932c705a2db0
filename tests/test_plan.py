"""The plan of a run against the memory that it takes, and what it advises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from tiny_command import command, merge, prepare, write
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gopd_lightning.cli import PlanCLI, run_cli
from gopd_lightning.planning import Plan, devices
from gopd_lightning.rollouts.thin_products import ThinProducts

HERE = Path(__file__).parent
WORDS = 49152


def large(folder: Path) -> str:
    """A random model of 42 million weights, large enough for megabytes to matter."""
    vocab = {token: i for i, token in enumerate(["<pad>", "<eos>", *tiny.CHARACTERS])}
    vocab |= {f"<{i}>": i for i in range(len(vocab), WORDS)}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")
    words.save_pretrained(folder)
    heads = {"num_hidden_layers": 4, "num_attention_heads": 9, "num_key_value_heads": 3}
    width = {"hidden_size": 576, "intermediate_size": 1536, "vocab_size": WORDS}
    config = LlamaConfig(**heads, **width, tie_word_embeddings=True, eos_token_id=1, pad_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A step of 8 rows on one rank: two micro-batches of 256 tokens, one teacher."""
    folder = tmp_path_factory.mktemp("plan")
    model = large(folder / "model")
    tiny.prompts(folder / "math.jsonl", "math", 16)
    content = merge(folder, folder / "run")
    content["model"]["init_args"] |= {
        "student": {"path": model},
        "teachers": [{"domain": "math", "path": model}],
        "reward_scale": 1.0,
        "max_micro_batch_tokens": 256,
    }
    sources = [{"path": str(folder / "math.jsonl"), "domain": "math"}]
    content["data"]["init_args"] |= {"train": sources, "val": [], "test": [], "prompts_per_step": 8}
    rollout = content["trainer"]["callbacks"][0]
    rollout["init_args"] |= {"sampling": {"n": 1, "max_new_tokens": 48}, "verifiers": {}}
    content["trainer"] |= {"callbacks": [rollout], "limit_val_batches": 0, "enable_checkpointing": False}
    return write(content, folder / "config.yaml")


@pytest.mark.parametrize(("ranks", "strategy"), [(1, "auto"), (2, "fsdp2")])
def test_plan_is_within_a_fifth_of_the_measured_peak(config, tmp_path, ranks, strategy):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    arguments = ["--config", config, "--trainer.default_root_dir", str(tmp_path / "run")]
    arguments += ["--trainer.devices", str(ranks), "--trainer.strategy", strategy]
    run = [sys.executable, str(HERE / "planned_fit.py"), str(tmp_path / "out.json"), *arguments]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["planned"] == pytest.approx(found["measured"], rel=0.2), found


def test_weights_laid_out_for_decoding_are_counted(config):
    cli = run_cli(["--config", config], run=False, kind=PlanCLI)
    plan = Plan(cli.config["trainer"], cli.config_init["model"], cli.config_init["data"])
    products = ThinProducts(AutoModelForCausalLM.from_pretrained(Path(config).parent / "model"))
    packed = sum(weight.numel() * weight.itemsize for weight in products._packed.values())
    assert plan.phases["rollout"]["weights laid out"] == packed > 0


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory):
    folder = prepare(tmp_path_factory.mktemp("tiny"))
    return write(merge(folder, folder / "run"), folder / "config.yaml")


@pytest.fixture
def small_gpu(monkeypatch):
    """A GPU without any memory."""
    monkeypatch.setitem(devices._GPUS, "small", (0, 100, 10, 1.0))


def test_what_does_not_fit_is_told_with_the_settings_that_help(tiny_config, small_gpu, capsys):
    done = command(capsys, "plan", "--config", tiny_config, "--gpu", "small")
    assert done.code == 0, done.errors
    assert "it does not fit" in done.out
    settings = ("dtype: bfloat16", "max_loaded_models: 1", "trainer.strategy: fsdp2", "gradient_checkpointing: true")
    assert all(setting in done.out for setting in settings)


def test_a_plan_is_for_the_ranks_and_the_machine_that_are_named_and_reads_no_weights(tiny_config, capsys, monkeypatch):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    flags = ("--trainer.accelerator", "gpu", "--trainer.devices", "8", "--trainer.num_nodes", "2", "--gpu", "h100")
    done = command(capsys, "plan", "--config", tiny_config, "--trainer.strategy", "fsdp2", *flags)
    assert done.code == 0, done.errors
    assert "16 rank(s), FSDP2, models in 16 parts" in done.out
    assert "A step takes" in done.out
    assert "(h100): it fits" in done.out
    assert "  - " not in done.out


def test_an_unknown_gpu_is_refused_in_one_line(tiny_config, capsys):
    done = command(capsys, "plan", "--config", tiny_config, "--gpu", "voodoo")
    assert (done.code, len(done.errors)) == (2, 1)
    assert "--gpu voodoo is unknown; known: a100-40gb" in done.errors[0]


def test_sharding_divides_weights_optimizer_and_frozen_models(tiny_config):
    stays = {}
    for ranks, strategy in ((1, "auto"), (4, "fsdp2"), (4, "ddp")):
        arguments = ["--config", tiny_config, "--trainer.devices", str(ranks), "--trainer.strategy", strategy]
        cli = run_cli(arguments, run=False, kind=PlanCLI)
        plan = Plan(cli.config["trainer"], cli.config_init["model"], cli.config_init["data"], gpu="a100")
        stays[ranks, strategy] = plan.stays
    for name in ("weights", "optimizer", "frozen models"):
        assert stays[4, "fsdp2"][name] == pytest.approx(stays[1, "auto"][name] / 4, rel=0.01)
        assert stays[4, "ddp"][name] == stays[1, "auto"][name]
