"""The cluster, and a run on it that nobody disturbs. These tests run when they are named: `make test-slurm`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from jobs import Job


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave `pytest tests` alone: these tests start daemons and take minutes."""
    asked = any("tests/slurm" in argument for argument in config.args)
    return None if asked else True


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    found = Cluster(Path(tempfile.mkdtemp(prefix="gopd-slurm-")))
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The run on two nodes from its first to its last step."""
    job = Job(cluster, tmp_path_factory.mktemp("whole"))
    job.wait_for_state("COMPLETED")
    return job
