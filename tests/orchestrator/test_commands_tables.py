"""What a search's table shows."""

import io
from typing import Any

import pytest
from rich.console import Console

from metaloom.orchestrator.commands_tables import number, show_search


def shown(objectives: list[dict[str, str]], **trial: Any) -> str:
    """Print a search of one finished trial."""
    row = {
        "id": 0,
        "state": "finished",
        "value": 0.75,
        "interval": [0.7, 0.8],
        "steps": 100,
        "seconds": 5.0,
        "knobs": {"learner.architecture.channels": 4},
        "error": None,
        **trial,
    }
    summary = {"name": "s", "state": "finished", "objectives": objectives, "best": row, "trials": [row]}
    out = io.StringIO()
    show_search(Console(file=out, width=160), summary | {"test": None, "baselines": []})
    return out.getvalue()


ACCURACY = {"metric": "validation_accuracy", "direction": "maximize"}
SIZE = {"metric": "parameters", "direction": "minimize"}


def test_every_objective_has_a_column() -> None:
    text = shown([ACCURACY, SIZE], values={"validation_accuracy": 0.75, "parameters": 14858.0})
    assert "parameters" in text.splitlines()[2] and "14858" in text
    assert "parameters" not in shown([ACCURACY])


def test_an_objective_that_is_not_known_yet_is_a_dash() -> None:
    text = shown([ACCURACY, SIZE], state="running", values={"validation_accuracy": None, "parameters": None})
    assert " - " in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.123456, "0.1235"), (14858.0, "14858"), (2.5e12, "2.5e+12"), (float("nan"), "nan"), (0.0, "0")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text
