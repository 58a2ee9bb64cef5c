"""Lets the suites over the registries use the bilevel problems of tests/learners and the toys of tests/orchestrator."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from metaloom.orchestrator.ray_connection import Connection

HERE = Path(__file__).parent
TOYS = str(HERE.parent / "orchestrator")

sys.path.insert(0, str(HERE.parent / "learners"))
torch.set_num_threads(1)

if TOYS not in sys.path:
    sys.path.insert(0, TOYS)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TOYS, os.environ.get("PYTHONPATH", "")]))


@pytest.fixture(scope="session")
def local_ray() -> Iterator["Connection"]:
    """A Ray of two CPUs, for the whole session."""
    from metaloom.orchestrator import ray_environment

    ray_environment.prepare(local=True)
    from metaloom.orchestrator.ray_connection import connected
    from metaloom.orchestrator.signals import Interruption

    with connected(Interruption(), cpus=2) as connection:
        yield connection
