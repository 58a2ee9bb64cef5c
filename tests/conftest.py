"""A Ray for whoever needs one: a process has one at most, so all tests of a process share it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from metaloom.orchestrator.ray_connection import Connection


@pytest.fixture(scope="session")
def local_ray() -> Iterator["Connection"]:
    """A Ray of two CPUs, for the whole session."""
    from metaloom.orchestrator import ray_environment

    ray_environment.prepare()
    from metaloom.orchestrator.ray_connection import connected
    from metaloom.orchestrator.signals import Interruption

    with connected(Interruption(), cpus=2) as connection:
        yield connection
