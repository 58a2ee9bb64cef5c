"""What the tests of experiments share."""

from pathlib import Path

import pytest

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment


@pytest.fixture
def complaints(tmp_path):
    """Load a file with this text, and return what is wrong with it: ``line path: message`` each."""

    def load(text: str, *overrides: str) -> list[str]:
        path = Path(tmp_path) / "search.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            load_experiment(path, overrides)
        except ExperimentError as error:
            return [str(problem) for problem in error.problems]
        return []

    return load
