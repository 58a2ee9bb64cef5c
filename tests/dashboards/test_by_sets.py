"""The value of a search's trials by how many data sets they were trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaloom.dashboards import figures, plots, queries
from metaloom.dashboards.by_sets import sets_values
from metaloom.learners.errors import BadInput
from metaloom.workers.data.dividing import number_trained_on
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import TrialConfig
from tests.dashboards.conftest import Write, story

SOURCES = [{"source": "signals", "set": ["chirps-0", "walks-0", "bumps-0"]}, {"source": "glyphs"}]


def many(weights: list[float] | None, **more: Any) -> dict[str, Any]:
    return {"source": "many", "sources": SOURCES, "weights": weights, **more}


def events(*trials: tuple[str, dict[str, Any]]) -> list[tuple[str, int | None, dict[str, Any]]]:
    """Return the events of finished trials of these methods and tasks, whose values are 0.1, 0.2, ..."""
    told = story({number: 0.1 * (number + 1) for number in range(len(trials))})
    for kind, trial, payload in told:
        if kind == records.TRIAL_SUGGESTED and trial is not None:
            method, tasks = trials[trial]
            payload["config"] = TrialConfig("first", trial, 0, tasks, {"method": method}, {}, {}, {}).to_json()
    return told


@pytest.mark.parametrize(
    ("tasks", "number"),
    [
        (many(None), 4),
        (many([1.0, 0.0]), 3),
        (many([0.0, 2.0]), 1),
        (many([1.0, 0.0, 0.5, 0.0]), 2),
        (many(None, validation_fraction=0.25, test_fraction=0.25), 2),
    ],
)
def test_data_sets_of_a_weight_above_0_are_counted(tasks: dict[str, Any], number: int) -> None:
    assert number_trained_on(tasks) == number


def test_the_curve_has_a_line_for_each_method(tmp_path: Path, write_search: Write) -> None:
    one, all_sets = many([0.0, 1.0]), many(None)
    write_search("first", events(("maml", one), ("maml", all_sets), ("prototypical", all_sets), ("maml", all_sets)))
    search = queries.search_record(tmp_path, "first")
    assert list(sets_values(search)["maml"]) == [1, 4] and list(sets_values(search)["prototypical"]) == [4]
    (axes,) = plots.PLOTS["sets"]("first", search).axes
    lines = {str(line.get_label()): np.array(line.get_xydata()) for line in axes.lines}
    assert lines["maml"] == pytest.approx(np.array([[1, 0.1], [4, 0.3]]))  # the mean of 0.2 and 0.4
    assert (figures.draw_search(tmp_path, "first").folder / "sets.png").is_file()


def test_one_number_of_data_sets_is_no_curve(tmp_path: Path, write_search: Write) -> None:
    write_search("first", events(("maml", many(None)), ("maml", {"source": "glyphs"})))
    with pytest.raises(BadInput, match=r"--kind sets: .*search tasks\.weights of source: many"):
        plots.PLOTS["sets"]("first", queries.search_record(tmp_path, "first"))
    assert not (figures.draw_search(tmp_path, "first").folder / "sets.png").exists()
