"""What all tests share: one thread, helpers that other processes can import, MLflow's database, one Ray a file."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.support.databases import share_mlflow_database
from tests.support.processes import PRELOADED

if TYPE_CHECKING:
    from metaloom.orchestrator.executors.ray_cluster.connection import Connection

ROOT = str(Path(__file__).resolve().parents[1])
MANY_SHORT_TESTS = ("learners", "search_spaces", "workers")

torch.set_num_threads(1)
# Ray's workers import torch when a trial needs it, which a toy trial does not. As for users: tests/faults.
os.environ.setdefault(PRELOADED, "metaloom.orchestrator.executors.ray_cluster.tune")
share_mlflow_database()
if ROOT not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    # the scripts that the fault tests start, and Ray's workers, import tests.support by name
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of few and long tests first, so that at the end both processes of `make test` have work."""
    items.sort(key=lambda item: item.nodeid.split("/")[1] in MANY_SHORT_TESTS)


@pytest.fixture(scope="module")
def local_ray() -> Iterator["Connection"]:
    """A Ray of two CPUs, for the tests of a file: its servers work as long as they are up, also for nobody."""
    from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment

    ray_environment.prepare()
    from metaloom.orchestrator.executors.ray_cluster.connection import connected
    from metaloom.orchestrator.interruption import Interruption

    with connected(Interruption(), cpus=2) as connection:
        yield connection
