"""Fixtures shared by the rooms' tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random tiny model that every test may read and none may change."""
    import tiny

    return tiny.model(tmp_path_factory.mktemp("lm"))
