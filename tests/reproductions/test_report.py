"""The page of reproductions: it is what its records say, and its intervals are what they are called."""

import json
import math

import pytest
import scipy.stats

from benchmarks.reproductions import report
from benchmarks.reproductions.harness import Row

HEADER = "| what | value | 95% interval | seeds | must reach | reached | setting |"


def cells(row: Row) -> list[str]:
    return [cell.strip() for cell in report._line(row).split("|")[1:-1]]


def test_the_interval_over_the_seeds_is_students() -> None:
    values = (0.0315, 2.3e-05, 3.7e-06)
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert Row("V20", "regret", values).seeds_interval == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_two_seeds_take_the_one_degree_of_freedom() -> None:
    """Cauchy's distribution: 12.706 standard errors to either side."""
    low, high = Row("V1", "error", (1.0, 3.0)).seeds_interval or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_a_single_seed_has_no_interval() -> None:
    row = Row("V17", "true accuracy", (0.9,))
    assert row.seeds_interval is None
    assert cells(row)[2] == ""


def test_seeds_that_agree_have_a_point_and_a_seed_that_diverged_has_none() -> None:
    assert Row("V17", "regret", (0.5, 0.5, 0.5)).seeds_interval == (0.5, 0.5)
    assert all(map(math.isnan, Row("V3", "error", (1.0, math.nan)).seeds_interval or ()))


def test_an_interval_over_the_seeds_is_marked_and_one_over_episodes_goes_first() -> None:
    assert cells(Row("V1", "error", (1e-10, 3e-10)))[2] == "[-1.1e-09, 1.5e-09] over the seeds"
    assert cells(Row("V2", "error", (1.0, 3.0), (1.5, 2.5)))[2] == "[1.5000, 2.5000]"


def test_the_gate_and_its_mark_stay_as_measured() -> None:
    row = Row("V15", "time, MAML's over ANIL's", (2.4, 2.7), None, ">= 1.5", True)
    assert cells(row)[4:6] == [">= 1.5", "yes"]


def test_the_page_is_what_its_records_say() -> None:
    assert report.PAGE.read_text() == report.page(json.loads(report.RECORDS.read_text()))


def test_every_row_of_several_seeds_has_an_interval() -> None:
    lines = [line.replace("\\|", "/") for line in report.PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line != HEADER]
    assert [what for what, _, interval, seeds, *_ in rows if seeds and not interval] == []


def test_a_claim_kept_is_on_the_page_beside_the_others(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(report, "DOCS", tmp_path)
    monkeypatch.setattr(report, "RECORDS", tmp_path / "reproductions.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "reproductions.md")
    report.keep("V20", [Row("V20", "regret", (0.1, 0.2))], 3.0, (0, 1))
    report.keep("V2", [Row("V2", "error", (0.5,))], 3.0, (0,))
    text = report.PAGE.read_text()
    assert text.index("## V2\n") < text.index("## V20\n")
    report.PAGE.unlink()
    report.rewrite()
    assert report.PAGE.read_text() == text
