"""Caches that the tests of this folder share: the glyphs are drawn once a session."""

from pathlib import Path

import pytest

from metaloom.workers.data import open_source


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    open_source({"source": "glyphs"}, seed=0, cache=folder)
    return folder


@pytest.fixture(scope="session")
def omniglot() -> Path:
    path = Path(__file__).parents[4] / "shared" / "data" / "omniglot.npz"
    if not path.exists():
        pytest.skip("the real Omniglot file is not beside the repository")
    return path
