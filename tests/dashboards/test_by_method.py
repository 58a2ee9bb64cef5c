"""The table of a search's methods: accuracy beside the seconds of an adaptation, on the same episodes."""

from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards import queries
from metaloom.dashboards.report import report as markdown
from metaloom.dashboards.text import method_cells, milliseconds
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import TrialConfig
from tests.dashboards.conftest import SUGGESTED, Write, report


def events(*trials: tuple[str, list[float], float]) -> list[tuple[str, int | None, dict[str, Any]]]:
    """Return the events of finished trials: method, accuracies, seconds of an adaptation."""
    told: list[tuple[str, int | None, dict[str, Any]]] = [(records.SEARCH_STARTED, None, {"pid": 1, "host": "here"})]
    for number, (method, scores, seconds) in enumerate(trials):
        mean = sum(scores) / len(scores)
        config = TrialConfig("first", number, 0, {"source": "glyphs"}, {"method": method}, {}, {}, {}).to_json()
        last = report(5, mean, finished=True, **{records.ADAPT_SECONDS: seconds}) | {"scores": scores}
        told += [
            (records.TRIAL_SUGGESTED, number, {**SUGGESTED, "knobs": {"number": number}, "config": config}),
            (records.TRIAL_STARTED, number, {"attempt": 1, "worker": ""}),
            (records.TRIAL_REPORTED, number, {"report": last}),
            (records.TRIAL_FINISHED, number, {"value": mean, "values": {records.VALIDATION_ACCURACY: mean}}),
        ]
    return told


def test_the_best_trial_of_each_method_is_paired_with_the_best_method(tmp_path: Path, write_search: Write) -> None:
    write_search(
        "first",
        events(
            ("maml", [0.5, 0.7, 0.6], 0.25),
            ("r2d2", [0.8, 0.9, 1.0], 0.004),
            ("maml", [0.6, 0.7, 0.8], 0.5),
            ("r2d2", [0.1, 0.2, 0.3], 0.004),
        ),
    )
    summary = queries.search_summary(tmp_path, "first")
    first, second = summary["methods"]
    assert (first["method"], first["trial"], first["behind"], first["adapt_seconds"]) == ("r2d2", 1, None, 0.004)
    assert (second["method"], second["trial"]) == ("maml", 2)
    assert second["behind"] == pytest.approx([0.2, 0.2, 0.2])  # each episode differs by as much
    assert second["mean"] == pytest.approx(0.7)
    assert second["interval"][0] < 0.7 < second["interval"][1]
    heads, cells = method_cells(summary)
    assert heads[2] == "validation accuracy [95% interval]"
    assert [one[-1] for one in cells] == ["4 ms", "500 ms"]
    assert cells[1][3] == "+0.2000 [+0.2000, +0.2000]"
    assert "## Methods" in markdown(summary)


def test_other_episodes_are_not_paired(tmp_path: Path, write_search: Write) -> None:
    write_search("first", events(("maml", [0.5, 0.7], 0.1), ("r2d2", [0.8, 0.9, 1.0], 0.1)))
    _, second = queries.search_summary(tmp_path, "first")["methods"]
    assert second["behind"] is None


def test_a_search_of_one_method_has_no_table(tmp_path: Path, write_search: Write) -> None:
    write_search("first", events(("maml", [0.5, 0.7], 0.1), ("maml", [0.8, 0.9], 0.1)))
    summary = queries.search_summary(tmp_path, "first")
    assert "methods" not in summary
    assert method_cells(summary)[1] == []
    assert "## Methods" not in markdown(summary)


@pytest.mark.parametrize(("seconds", "told"), [(0.0123, "12.3 ms"), (2.5, "2.5 s")])
def test_short_times_have_a_unit_that_shows_them(seconds: float, told: str) -> None:
    assert milliseconds(seconds) == told
