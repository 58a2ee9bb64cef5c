"""Where a control wins, its claim says so, in the numbers of its rows."""

import json

import pytest

from benchmarks.reproductions import CLAIMS, report
from benchmarks.reproductions.controls import COMPARISONS, case_of, wins
from benchmarks.reproductions.harness import Row

RECORDS = json.loads(report.RECORDS.read_text())


def rows_of(claim: str) -> list[Row]:
    return [Row(**report._tuples(row)) for row in RECORDS[claim]["rows"]]


def row(what: str, mean: float, *, claim: str = "V8", width: float = 0.01) -> Row:
    return Row(claim, what, (mean, mean), (mean - width, mean + width))


def test_only_claims_that_exist_are_compared() -> None:
    assert set(COMPARISONS) <= set(CLAIMS)


@pytest.mark.parametrize("claim", [claim for claim in COMPARISONS if claim in RECORDS])  # those that are measured
def test_every_name_is_of_a_row_that_is_compared(claim: str) -> None:
    """A row that is called something else must not silence its comparison."""
    comparison, rows = COMPARISONS[claim], rows_of(claim)
    cases = {
        name: {case_of(one.what, name) for one in rows} - {None} for name in comparison.methods + comparison.controls
    }
    methods = set.union(*(cases[name] for name in comparison.methods))
    assert all(cases[name] & methods for name in cases)


@pytest.mark.parametrize(
    ("claim", "case", "method", "control"),
    [
        (
            "V21",
            "97 digits",
            "learned policy (dada), the best of 2 outer rates (0.8879)",
            "no augmentation, trained on the 200 meta samples too (0.9182)",
        ),
        ("V8", "imbalance 50", "Meta-Weight-Net (0.7700)", "the 50 balanced samples alone (0.7907, intervals overlap)"),
        (
            "V8",
            "imbalance 100",
            "Meta-Weight-Net (0.7733)",
            "the 50 balanced samples alone (0.7907, intervals overlap)",
        ),
        (
            "V7",
            "40% noise (36% of labels wrong), decay 0.01",
            "learning to reweight, last epoch (0.9284)",
            "plain cross entropy, last epoch (0.9288, intervals overlap)",
        ),
    ],
)
def test_the_page_names_the_controls_that_win(claim: str, case: str, method: str, control: str) -> None:
    section = report.PAGE.read_text().split(f"## {claim}\n")[1].split("\n## ")[0]
    (line,) = [line for line in section.splitlines() if line.startswith(f"- {case}: {method} is beaten by ")]
    assert f"by {control}" in line


def test_a_control_that_loses_is_not_named() -> None:
    rows = [row("imbalance 9: plain cross entropy", 0.7), row("imbalance 9: Meta-Weight-Net", 0.8)]
    assert wins(rows) == []


def test_means_that_differ_by_rounding_are_equal() -> None:
    rows = [row("imbalance 9: plain cross entropy", 0.1 + 0.2), row("imbalance 9: Meta-Weight-Net", 0.3)]
    assert rows[0].mean > rows[1].mean
    assert wins(rows) == []


def test_rows_of_another_case_are_not_compared() -> None:
    rows = [row("imbalance 9: plain cross entropy", 0.9), row("imbalance 5: Meta-Weight-Net", 0.8)]
    assert wins(rows) == []


def test_intervals_that_overlap_are_said_to() -> None:
    rows = [
        row("imbalance 9: plain cross entropy", 0.81),
        row("imbalance 9: classes weighed by their size", 0.9),
        row("imbalance 9: Meta-Weight-Net", 0.8),
    ]
    assert wins(rows) == [
        "imbalance 9: Meta-Weight-Net (0.8000) is beaten by plain cross entropy (0.8100, intervals overlap); "
        "by classes weighed by their size (0.9000)."
    ]


def test_of_regrets_the_lower_wins() -> None:
    rows = [Row("V20", f"{name}, 3 penalties: regret", value) for name, value in REGRETS.items()]
    assert wins(rows) == ["3 penalties: regret: hypergradient (0.0200) is beaten by TPE (0.0100)."]


REGRETS = {"hypergradient": (0.02, 0.02), "TPE": (0.01, 0.01), "random": (0.5, 0.5)}


def test_a_claim_without_controls_says_nothing() -> None:
    assert wins(rows_of("V1")) == []
    assert wins([]) == []
