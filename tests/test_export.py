import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_fit
import torch
import yaml
from gopd_callbacks.hf_export import HFExport
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gopd_lightning.errors import InputError
from gopd_lightning.export import export_run
from gopd_lightning.models.folders import adapter_base
from gopd_lightning.models.specs import StudentSpec

HERE = Path(__file__).parent
SHARDED = """
import sys; from pathlib import Path; import tiny_fit, torch
from gopd_callbacks.hf_export import HFExport
folder, strategy = Path(sys.argv[1]), tiny_fit.strategy_of(sys.argv[2])
out = tiny_fit.fit(folder, tiny_fit.build(folder), run=sys.argv[2], callbacks=(HFExport(),),
                   enable_checkpointing=True, strategy=strategy, devices=2)
if out["trainer"].is_global_zero:
    torch.save(out["weights"], folder / sys.argv[2] / "weights.pt")
"""


def write_config(run: Path, student: dict[str, Any]) -> None:
    content = {"model": {"class_path": "gopd_lightning.GOPD", "init_args": {"student": student}}}
    (run / "config.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished run of one process, with its weights."""
    folder = tmp_path_factory.mktemp("export")
    tiny_fit.prepare(folder)
    callbacks = (HFExport(),)
    out = tiny_fit.fit(folder, tiny_fit.build(folder), callbacks=callbacks, enable_checkpointing=True)
    write_config(folder / "run", {"path": str(folder / "base")})
    return {"folder": folder, "run": folder / "run", "weights": out["weights"]}


def assert_is(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """The folder loads by the usual classes, and holds exactly these weights."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    state = model.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    words = AutoTokenizer.from_pretrained(folder)
    assert words.decode(words("1+2=").input_ids).replace(" ", "") == "1+2="
    files = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= files


def test_callback_leaves_the_trained_student(done: dict[str, Any]) -> None:
    assert_is(done["run"] / "student", done["weights"])
    base = AutoModelForCausalLM.from_pretrained(done["folder"] / "base").state_dict()
    assert not all(torch.equal(base[name], done["weights"][name]) for name in base)


def test_export_from_a_checkpoint_is_the_trained_student(done: dict[str, Any], tmp_path: Path) -> None:
    export_run(str(done["run"]), str(tmp_path / "out"))
    assert_is(tmp_path / "out", done["weights"])


def test_export_replaces_an_older_folder_and_leaves_nothing_else(done: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/stale.txt").write_text("old")
    export_run(str(done["run"]), str(tmp_path / "out"))
    assert not (tmp_path / "out/stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_export_in_another_dtype(done: dict[str, Any], tmp_path: Path) -> None:
    export_run(str(done["run"]), str(tmp_path / "out"), dtype="bfloat16")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.bfloat16
    name = "model.embed_tokens.weight"
    assert torch.equal(model.state_dict()[name], done["weights"][name].bfloat16())


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp2_one_file"])
def test_sharded_run_is_exported_whole_by_callback_and_from_its_checkpoint(
    done: dict[str, Any], tmp_path: Path, strategy: str
) -> None:
    script, folder = tmp_path / "sharded.py", done["folder"]
    script.write_text(SHARDED)
    path = os.pathsep.join([str(HERE), *(path for path in sys.path if path)])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    ran = subprocess.run(
        [*command, str(folder), strategy],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    run = folder / strategy
    weights = torch.load(run / "weights.pt")
    assert (run / "checkpoints/last.ckpt").is_dir() == (strategy == "fsdp2")
    assert_is(run / "student", weights)
    write_config(run, {"path": str(folder / "base")})
    export_run(str(run), str(tmp_path / "out"))
    assert_is(tmp_path / "out", weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run": "nowhere"}, "nowhere is not a run folder: it holds no config.yaml"),
        ({"ckpt": "best"}, "best.ckpt; found: .*last"),
        ({"dtype": "fp8"}, "--dtype fp8 is unknown; known: float32"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    done: dict[str, Any], tmp_path: Path, arguments: dict[str, str], message: str
) -> None:
    given = {"run": str(done["run"]), "out": str(tmp_path / "out")} | arguments
    with pytest.raises(InputError, match=message) as error:
        export_run(**given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_of_a_student_with_an_adapter_the_adapter_is_written(done: dict[str, Any], tmp_path: Path, dtype: str) -> None:
    folder, lora = done["folder"], {"r": 2, "target_modules": "all-linear"}
    student = StudentSpec(path=str(folder / "base"), lora=lora)
    module, run = tiny_fit.build(folder, student=student), folder / f"adapter-{dtype}"
    tiny_fit.fit(folder, module, run=run.name, callbacks=(HFExport(),), enable_checkpointing=True)
    write_config(run, {"path": str(folder / "base"), "lora": lora})
    export_run(str(run), str(tmp_path / "out"), dtype=dtype)
    left, written = (load_file(path / "adapter_model.safetensors") for path in (run / "student", tmp_path / "out"))
    assert left.keys() == written.keys()
    assert any(tensor.any() for name, tensor in left.items() if "lora_B" in name)
    wanted = torch.float32 if dtype is None else torch.bfloat16
    assert all(torch.equal(left[name].to(wanted), written[name]) for name in left)
    assert adapter_base(str(tmp_path / "out")) == str(folder / "base")


def test_checkpoint_of_another_model_is_refused(done: dict[str, Any], tmp_path: Path) -> None:
    import tiny

    (tmp_path / "checkpoints").symlink_to(done["run"] / "checkpoints")
    write_config(tmp_path, {"path": tiny.model(tmp_path / "wide", hidden=64)})
    with pytest.raises(InputError, match=r"is \(39, 32\) in the checkpoint and \(39, 64\) in"):
        export_run(str(tmp_path), str(tmp_path / "out"))


def test_a_checkpoint_without_a_student_is_refused(tmp_path: Path, lm_folder: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "checkpoints/last.ckpt")
    write_config(tmp_path, {"path": lm_folder})
    with pytest.raises(InputError, match="holds no weights of a student"):
        export_run(str(tmp_path), str(tmp_path / "out"))
