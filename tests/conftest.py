"""Fixtures shared by the rooms' tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random tiny model that every test may read and none may change."""
    import tiny

    return tiny.model(tmp_path_factory.mktemp("lm"))


@pytest.fixture(autouse=True)
def no_seed_left_behind() -> Iterator[None]:
    """`seed_everything` of a test's run stays in the environment, and would seed the runs of later tests."""
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)
