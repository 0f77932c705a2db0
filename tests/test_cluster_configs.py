"""configs/cluster: the overlay joins any method's config, and the sbatch file says what works."""

import re
import subprocess

import pytest
import yaml
from gopd_callbacks import Requeue
from test_configs import CONFIGS, METHODS, read
from tiny_command import command

from gopd_lightning import FSDP2

SBATCH = CONFIGS / "cluster" / "gopd.sbatch"


@pytest.mark.parametrize("name", METHODS)
def test_the_overlay_adds_heartbeat_and_requeue_to_a_method_and_shards_its_student(name, capsys):
    files = (CONFIGS / name, CONFIGS / "cluster/fsdp2.yaml")
    found = command(capsys, "fit", *(f"--config={file}" for file in files), "--print_config")
    trainer = yaml.safe_load(found.out)["trainer"]
    added = ["gopd_callbacks.Heartbeat", "gopd_callbacks.Requeue"]
    assert [c["class_path"] for c in trainer["callbacks"]] == class_paths(name) + added
    assert trainer["strategy"]["class_path"] == "gopd_lightning.FSDP2"
    own = read(name)["trainer"].get("strategy", {"init_args": {}})["init_args"]
    assert own.items() <= trainer["strategy"]["init_args"].items()  # such as bfloat16
    FSDP2(**trainer["strategy"]["init_args"])


def class_paths(name):
    return [callback["class_path"] for callback in read(name)["trainer"]["callbacks"]]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_saves_what_a_requeued_job_goes_on_from(name):
    assert any(path.endswith("ModelCheckpoint") for path in class_paths(name))


def test_the_sbatch_file_is_a_script_that_names_files_that_exist():
    subprocess.run(["bash", "-n", SBATCH], check=True)
    named = re.findall(r"configs/[\w/.]+\w", SBATCH.read_text())
    assert {"configs/cluster/fsdp2.yaml", "configs/cluster/gopd.sbatch"} <= {*named}
    assert all((CONFIGS.parent / name).exists() for name in named)


def test_the_warning_that_the_sbatch_file_asks_for_is_the_one_that_the_overlay_takes():
    asked = re.search(r"^#SBATCH --signal=(\w+)@\d+$", SBATCH.read_text(), re.MULTILINE)[1]
    callbacks = yaml.safe_load((CONFIGS / "cluster/fsdp2.yaml").read_text())["trainer"]["callbacks+"]
    (given,) = [one.get("init_args", {}) for one in callbacks if one["class_path"] == "gopd_callbacks.Requeue"]
    assert Requeue(**given).signals[0].name == f"SIG{asked}"
