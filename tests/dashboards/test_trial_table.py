"""The table of trials holds what ``metaloom show`` tells, and its filters, orders and files keep its values."""

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaloom.dashboards import queries
from metaloom.dashboards.filters import FilterError
from metaloom.dashboards.trial_columns import TrialColumn, typed
from metaloom.dashboards.trial_table import (
    TrialFilter,
    TrialTable,
    csv_of,
    numbers_of,
    parquet_of,
    ranges_text,
    trial_table,
)
from metaloom.learners.errors import BadInput
from metaloom.workers.records import names as records
from tests.dashboards.conftest import SUGGESTED, Write, report

RATE, METHOD = "learner[maml].update.rate", "learner.method"
KNOBS: tuple[dict[str, Any], ...] = ({RATE: 0.1, METHOD: "maml"}, {METHOD: "<b>proto</b>"}, {RATE: 2, METHOD: "maml"})


@pytest.fixture
def table(tmp_path: Path, write_search: Write) -> TrialTable:
    """The table of a finished, a stopped and a failed trial, and of one that has not begun."""
    events: list[tuple[str, int | None, dict[str, Any]]] = [(records.SEARCH_STARTED, None, {"host": "elsewhere"})]
    for number, knobs in enumerate(KNOBS):
        events += [
            (records.TRIAL_SUGGESTED, number, {**SUGGESTED, "knobs": knobs}),
            (records.TRIAL_STARTED, number, {"attempt": 1, "worker": ""}),
            (records.TRIAL_REPORTED, number, {"report": report(10, 0.4 + number / 10)}),
        ]
    events += [
        (records.TRIAL_INTERRUPTED, 0, {"reason": "the machine went away", "lost": True}),
        (records.TRIAL_STARTED, 0, {"attempt": 2, "worker": ""}),
        (records.TRIAL_REPORTED, 0, {"report": report(20, 0.7, finished=True)}),
        (records.TRIAL_FINISHED, 0, {"value": 0.7, "values": {}}),
        (records.TRIAL_STOPPED, 1, {"reason": "worse than trial 0 at rung 10", "values": {}}),
        (records.TRIAL_FAILED, 2, {"reason": "loss is nan", "traceback": "..."}),
        (records.TRIAL_SUGGESTED, 3, {**SUGGESTED, "knobs": {METHOD: "maml"}}),
    ]
    write_search("first", events)
    search = queries.search_record(tmp_path, "first")
    return trial_table(search, queries.search_row(tmp_path, "first", search))


def numbers(table: TrialTable, **asked: Any) -> list[int]:
    """Return the trials that a filter keeps, in their order."""
    found: list[int] = table.filtered(TrialFilter(**asked))["trial"].to_pylist()
    return found


def test_the_rows_are_those_of_show(table: TrialTable, tmp_path: Path) -> None:
    shown = queries.search_summary(tmp_path, "first")["trials"]
    for row, trial in zip(table.table.to_pylist(), shown, strict=True):
        assert (row["trial"], row["state"], row["value"]) == (trial["id"], trial["state"], trial["value"])
        assert [row["low"], row["high"]] == (trial["interval"] or [None, None])
        assert (row["steps"], row["seconds"]) == (trial["steps"], trial["seconds"])
        assert {name: row[name] for name in (RATE, METHOD) if row[name] is not None} == trial["knobs"]
    assert table.table["best"].to_pylist() == [True, False, False, False]
    assert table.table["train_loss"].to_pylist() == [1 / 20, 1 / 10, 1 / 10, None]


def test_each_ending_is_told_in_words(table: TrialTable) -> None:
    assert table.table["why"].to_pylist() == [
        "all its outer steps are done; its worker was lost",
        "worse than trial 0 at rung 10",
        "loss is nan",
        "not begun",
    ]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"text": "PROTO</b>"}, [1]),
        ({"text": "nan"}, [2]),
        ({"states": ("failed", "stopped")}, [1, 2]),
        ({"where": f"{RATE} > 0.5"}, [2]),
        ({"where": f"{RATE} is None and {METHOD} == 'maml'"}, [3]),
        ({"where": "value > 0.45 and not best"}, [1, 2]),
        ({"where": f"-{RATE} < -1"}, [2]),
        ({"numbers": frozenset({1, 3, 900})}, [1, 3]),
        ({"numbers": frozenset()}, []),
        ({"sort": "value"}, [1, 2, 0, 3]),
        ({"sort": "-value"}, [0, 2, 1, 3]),
        ({"sort": f"-{METHOD}"}, [0, 2, 3, 1]),
        ({"sort": "-trial", "states": ("failed", "finished")}, [2, 0]),
    ],
)
def test_a_filter_keeps_its_trials_in_their_order(table: TrialTable, asked: dict[str, Any], kept: list[int]) -> None:
    assert numbers(table, **asked) == kept


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"where": "valu > 1"}, "did you mean 'value'"),
        ({"where": "learner.metod == 'maml'"}, f"did you mean '{METHOD}'"),
        ({"where": "state > 3"}, "different kinds"),
        ({"where": "__import__('os')"}, "neither"),
        ({"sort": "-vale"}, "did you mean 'value'"),
        ({"states": ("finishd",)}, "did you mean 'finished'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_nearest(table: TrialTable, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        numbers(table, **asked)
    assert issubclass(FilterError, BadInput)


def test_the_files_hold_the_values_with_their_types(table: TrialTable) -> None:
    kept = table.filtered(TrialFilter(sort="-value"))
    columns = table.chosen(["trial", "value", "best", RATE, METHOD, "steps"])
    read = parquet.read_table(io.BytesIO(parquet_of(kept, columns)))
    assert {field.name: str(field.type) for field in read.schema} == {
        "trial": "int64",
        "value": "double",
        "best": "bool",
        "steps": "int64",
        RATE: "double",
        METHOD: "string",
    }
    assert read.schema.field(RATE).metadata[b"doc"] == b"searched knob"
    assert read.to_pylist() == [{name: row[name] for name in read.column_names} for row in kept.to_pylist()]
    text = list(csv.DictReader(io.StringIO(csv_of(kept, columns).decode())))
    assert [float(row["value"]) if row["value"] else None for row in text] == kept["value"].to_pylist()
    assert [row[METHOD] for row in text] == kept[METHOD].to_pylist()


def test_columns_are_chosen_by_their_keys_and_an_unknown_one_is_refused(table: TrialTable) -> None:
    assert [one.key for one in table.chosen([RATE, "trial"])] == ["trial", RATE]
    assert [one.name for one in table.chosen([])] == [one.name for one in table.columns if one.shown]
    with pytest.raises(BadInput, match="did you mean 'value'"):
        table.chosen(["valu"])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("value", "value"),
        ("learner[maml].update.rate", "learner[maml].update.rate"),
        ("tasks.weights.mini-imagenet", "tasks_weights_mini_imagenet"),
        ("inner.lambda", "inner_lambda"),
        ("lambda", "_lambda"),
        ("5ways", "_5ways"),
    ],
)
def test_every_column_has_a_name_for_conditions(name: str, key: str) -> None:
    assert TrialColumn(name, "", None, lambda facts: None).key == key


def test_knobs_of_several_kinds_have_one_type() -> None:
    assert typed([1, None, 2]) == ("int64", [1, None, 2])
    assert typed([1, 2.5]) == ("float64", [1.0, 2.5])
    assert typed([True, None]) == ("bool", [True, None])
    assert typed([[1, 2], "a", None, True]) == ("string", ["[1, 2]", "a", None, "true"])
    assert typed([2**70]) == ("float64", [2.0**70])  # beyond 64 bits


@given(st.sets(st.integers(0, 300)))
def test_ranges_are_read_as_they_are_written(trials: set[int]) -> None:
    assert numbers_of(ranges_text(trials), below=301) == trials


@pytest.mark.parametrize("ranges", ["a", "1-b", "-3", "1--2", "0x3", "9" * 5000])
def test_what_is_no_range_is_refused(ranges: str) -> None:
    with pytest.raises(BadInput, match="no range"):
        numbers_of(ranges, below=10)
    assert numbers_of("5-999999999", below=10) == {5, 6, 7, 8, 9}
