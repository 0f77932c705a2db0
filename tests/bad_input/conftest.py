"""A config that works, and a command that must refuse what a test makes of it before weights load."""

from typing import Any

import pytest
from refusals import callbacks, data, model, one_line
from tiny_command import command, merge, prepare, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("merge"))


@pytest.fixture
def content(folder, tmp_path) -> dict[str, Any]:
    return merge(folder, tmp_path / "run")


@pytest.fixture
def lean(content) -> dict[str, Any]:
    """The same with nothing that a test does not need: quicker to parse."""
    model(content).pop("optimizer")
    data(content).pop("test")
    content["trainer"]["callbacks"] = callbacks(content)[:1]
    return content


@pytest.fixture
def no_weights(monkeypatch):
    """Whoever loads weights fails the test."""

    def loaded(*args, **kwargs):
        pytest.fail("weights were loaded before the input was refused")

    monkeypatch.setattr("gopd_lightning.modules.student.load_student", loaded)
    monkeypatch.setattr("gopd_lightning.modules.student.FrozenBank", loaded)


@pytest.fixture
def refused(no_weights, tmp_path, capsys):
    """Runs a fit that must be refused; gives back its one line."""

    def run(content: dict[str, Any] | None, *arguments: str) -> str:
        config = () if content is None else ("--config", write(content, tmp_path / "config.yaml"))
        return one_line(command(capsys, "fit", *config, *arguments))

    return run
