"""What a search's table shows."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from metaloom.dashboards.text import number, other_setting
from metaloom.orchestrator.command_line.tables import show_search


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
        "notes": ["stopped early at step 100"],
        "warnings": [],
        **trial,
    }
    summary = {"name": "s", "state": "finished", "objectives": objectives, "best": row, "trials": [row]}
    return printed(summary | {"test": None, "baselines": []})


def printed(summary: dict[str, Any], *, notes: bool = False) -> str:
    """Print a summary."""
    out = io.StringIO()
    show_search(Console(file=out, width=160), {"learned": [], "warnings": [], "notes": [], **summary}, notes=notes)
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


def test_notes_are_for_show_alone() -> None:
    row = {"id": 0, "state": "finished", "value": 0.75, "interval": [0.7, 0.8], "steps": 1, "seconds": 5.0, "knobs": {}}
    row |= {"error": None, "notes": ["stopped early at step 100"], "warnings": []}
    summary = {"name": "s", "state": "finished", "objectives": [ACCURACY], "best": row, "trials": [row]}
    summary |= {"test": None, "baselines": []}
    assert "trial 0: stopped early at step 100" in printed(summary, notes=True)
    assert "stopped early" not in printed(summary)


def test_what_went_wrong_and_was_put_right_is_told_below() -> None:
    text = shown([ACCURACY], warnings=["checkpoint 2 is damaged", "went back to checkpoint 1"])
    assert "trial 0: checkpoint 2 is damaged\ntrial 0: went back to checkpoint 1\n" in text


def test_what_the_best_trial_has_learned_is_told_in_words_with_its_picture() -> None:
    best = {"id": 3}
    learned = [{"name": "learner.update.rate", "caption": "0.02 to 0.4", "figure": "figures/rates.svg"}]
    search = {"name": "s", "state": "finished", "objectives": [ACCURACY], "best": best, "trials": []}
    search |= {"test": None, "baselines": [], "learned": learned}
    told = "What trial 3 has learned:\n  learner.update.rate: 0.02 to 0.4\n    figures/rates.svg\n"
    assert told in printed(search)
    assert "has learned" not in printed(search | {"learned": []})


def printed_tests(*baselines: dict[str, Any]) -> list[list[str]]:
    """Print a search with its tests; return the cells of the test's table."""
    evaluation = {"metric": "accuracy", "mean": 0.76, "interval": [0.75, 0.77], "episodes": 600, "setting": "inductive"}
    search = {"name": "s", "state": "finished", "objectives": [ACCURACY], "best": None, "trials": []}
    told = [{"method": "plain", "evaluation": evaluation, **one} for one in baselines]
    text = printed(search | {"test": {"trial": 3, "evaluation": evaluation}, "baselines": told})
    lines = [line.strip() for line in text[text.index("on the test split") :].splitlines() if "─" not in line]
    return [re.split(r"\s{2,}", line) for line in lines if line]


def test_a_baseline_shows_by_how_much_the_best_is_better_on_the_same_episodes() -> None:
    head, best, *rows = printed_tests(
        {"best_better_by": {"mean": 0.024, "interval": [-0.00791, 0.0401], "episodes": 600}},
        {"best_better_by": {"mean": -0.5, "interval": [-0.6, -0.4], "episodes": 600}},
        {"best_better_by": {"mean": None, "interval": [None, None], "episodes": 600}},
        {"best_better_by": None},
    )
    assert head == [
        "on the test split",
        "accuracy [95% interval]",
        "the best is better by [95% interval]",
        "episodes",
        "setting",
    ]
    assert best == ["trial 3 (best)", "0.7600 [0.7500, 0.7700]", "600", "inductive"]
    told = ["+0.0240 [-0.0079, +0.0401]", "-0.5000 [-0.6000, -0.4000]", "-", "-"]
    assert rows == [["baseline plain", "0.7600 [0.7500, 0.7700]", one, "600", "inductive"] for one in told]


def test_without_baselines_there_is_nothing_to_be_better_than() -> None:
    assert printed_tests()[0] == ["on the test split", "accuracy [95% interval]", "episodes", "setting"]


def test_a_transductive_score_has_the_inductive_one_beside_it() -> None:
    inductive = {"mean": 0.5, "interval": [0.4, 0.6], "better_by": -0.26, "better_by_interval": [-0.3, -0.2]}
    evaluation = {"metric": "accuracy", "mean": 0.76, "interval": [0.7, 0.8], "episodes": 9, "setting": "transductive"}
    head, best, baseline = printed_tests(
        {"evaluation": {**evaluation, "inductive": inductive}, "best_better_by": None},
    )
    assert head[1:3] == ["accuracy [95% interval]", "inductive accuracy"]
    assert best[1:3] == ["0.7600 [0.7500, 0.7700]", "0.7600 [0.7500, 0.7700]"]  # it is inductive itself
    assert baseline[1:3] == ["0.7600 [0.7000, 0.8000]", "0.5000 [0.4000, 0.6000]"]
    (line,) = other_setting({**evaluation, "inductive": inductive})
    assert line.endswith("0.5000 [0.4000, 0.6000], better by -0.2600 [-0.3000, -0.2000]")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.123456, "0.1235"), (14858.0, "14858"), (2.5e12, "2.5e+12"), (float("nan"), "nan"), (0.0, "0")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text
