"""The overlay that puts vLLM behind a config's rollouts; where vLLM is missing, one line says how to get it."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from gopd_callbacks import Engine, Rollout
from tiny_command import command

from gopd_lightning.errors import InputError
from gopd_lightning.rollouts import TransformersEngine

CONFIGS = Path(__file__).parents[2] / "configs"


class Trainer:
    """What the callback asks of a trainer."""

    def __init__(self, *callbacks):
        self.callbacks = callbacks


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_overlay_is_one_line_that_names_the_extra(capsys, tmp_path):
    configs = [f"--config={CONFIGS / name}" for name in ("multi_teacher_merge.yaml", "engine/vllm.yaml")]
    found = command(capsys, "fit", *configs, f"--trainer.default_root_dir={tmp_path}")
    assert found.code == 2
    (line,) = found.errors
    assert "vLLM is not installed" in line
    assert "gopd-lightning[vllm]" in line


def test_the_rollouts_of_a_run_get_the_engine():
    rollout, engine = Rollout(), TransformersEngine()
    Engine(engine).setup(Trainer(rollout), None, "fit")
    assert rollout.engine is engine


def test_a_run_without_rollouts_has_no_engine_to_swap():
    with pytest.raises(InputError, match="no gopd_callbacks.Rollout"):
        Engine(TransformersEngine()).setup(Trainer(), None, "fit")
