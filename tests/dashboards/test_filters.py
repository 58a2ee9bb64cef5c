"""--where: what it accepts keeps Python's meaning, and what it refuses it explains."""

import math
import struct

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaloom.dashboards.filters import FilterError, counted, counted_row, parse_filter

ROWS = [
    {"trial": 0, "phase": "train", "accuracy_after": 0.95, "accuracy_before": 0.2, "norm": 1.5},
    {"trial": 1, "phase": "validation", "accuracy_after": 0.91, "accuracy_before": 0.6, "norm": None},
    {"trial": 1, "phase": "validation", "accuracy_after": 0.40, "accuracy_before": 0.5, "norm": None},
    {"trial": 7, "phase": "test", "accuracy_after": 0.99, "accuracy_before": 0.99, "norm": 2.5},
]
COLUMNS = list(ROWS[0])


def kept(text: str) -> list[int]:
    """Return the positions of the rows that the filter keeps."""
    table = pa.Table.from_pylist([{**row, "row": number} for number, row in enumerate(ROWS)])
    found = ds.dataset(table).to_table(filter=parse_filter(text, COLUMNS))
    return [int(number) for number in found["row"].to_pylist()]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("accuracy_after > 0.9 and phase == 'validation'", [1]),
        ("trial in [0, 7]", [0, 3]),
        ("trial not in (0, 7)", [1, 2]),
        ("not (phase == 'train' or phase == 'test')", [1, 2]),
        ("accuracy_after - accuracy_before > 0.5", [0]),
        ("0.3 < accuracy_after <= 0.91", [1, 2]),
        ("norm is None", [1, 2]),
        ("norm is not None and norm * 2 >= 5", [3]),
        ("-trial < -5", [3]),
        ("  trial != 1  ", [0, 3]),
        ("trial / 2 == 0.5", [1, 2]),
        ("accuracy_before > 1 / 2", [1, 3]),
    ],
)
def test_a_condition_keeps_the_rows_that_python_would(text: str, rows: list[int]) -> None:
    assert kept(text) == rows


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
)
def test_every_comparison_agrees_with_python(number: float, sign: str) -> None:
    expected = [n for n, row in enumerate(ROWS) if eval(f"{row['accuracy_after']!r} {sign} {number!r}")]
    assert kept(f"accuracy_after {sign} {number!r}") == expected


EXACT, ROUNDED = 3 / 5, 0.6000000238418579  # 3 of 5 queries, as recorded now and up to version 0.2 (in float32)


@pytest.mark.parametrize("stored", [EXACT, ROUNDED])
@pytest.mark.parametrize(
    ("text", "is_kept"),
    [
        ("accuracy_after == 0.6", True),
        ("accuracy_after == 3 / 5", True),
        ("accuracy_after in [0.6]", True),
        ("accuracy_after > 0.6", False),
        ("accuracy_after <= 0.6", True),
        ("accuracy_after >= 0.6", True),
        ("accuracy_after != 0.6", False),
        ("accuracy_after - accuracy_before == 0.6 - 0.2", True),
        ("accuracy_after is None", False),
    ],
)
def test_an_accuracy_is_the_fraction_of_its_queries(stored: float, text: str, is_kept: bool) -> None:
    row = {"accuracy_before": 0.2, "accuracy_after": stored, "ways": 5, "queries": 1, "accuracies": [0.2, stored]}
    found = ds.dataset(pa.Table.from_pylist([row])).to_table(filter=parse_filter(text, list(row)))
    assert found.num_rows == is_kept
    assert counted_row(row) == {**row, "accuracy_after": 0.6, "accuracies": [0.2, 0.6]}


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_every_fraction_is_told_from_its_float32(counts: tuple[int, int]) -> None:
    queries, right = counts
    stored = struct.unpack("f", struct.pack("f", right / queries))[0]
    row = {"accuracy_before": None, "accuracy_after": stored, "ways": 1, "queries": queries, "accuracies": []}
    assert counted_row(row)["accuracy_after"] == right / queries
    assert counted_row({**row, "ways": 0}) == {**row, "ways": 0}  # not a fraction of its queries
    table = pa.Table.from_pylist([row])
    assert ds.dataset(table).to_table(columns={"told": counted("accuracy_after")})["told"].to_pylist() == [
        right / queries
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("acuracy_after > 0.9", "did you mean 'accuracy_after'"),
        ("accuracy_after >", "cannot read"),
        ("__import__('os').system('true')", "is neither a comparison"),
        ("accuracy_after.__class__ == 1", "neither a column nor a number"),
        ("trial == [1]", "neither a column nor a number"),
        ("trial in phase", "must be a list"),
        ("trial is 3", "only as None"),
        ("trial == (lambda: 1)()", "neither a column nor a number"),
        ("f'{trial}' == 'x'", "neither a column nor a number"),
        ("", "cannot read"),
        ("a" * 3000, "at most 2000"),
        ("trial == 1\x00", "cannot read"),
        ("(" * 400 + "trial" + ")" * 400 + " == 1", "cannot read"),
    ],
)
def test_anything_else_is_refused_with_the_columns(text: str, told: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text, COLUMNS)
    assert told in str(caught.value)
    assert math.isclose(caught.value.exit_code, 2)
