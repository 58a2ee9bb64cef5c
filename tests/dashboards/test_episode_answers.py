"""Sorted pages, counts, downloads and hard classes, each against a computation over all rows."""

import csv
import io
import json
import statistics
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from metaloom.dashboards import queries
from metaloom.dashboards.episodes.asked import EpisodeQuestion
from metaloom.dashboards.episodes.class_scores import class_scores
from metaloom.dashboards.episodes.counting import count_on, known_total
from metaloom.dashboards.episodes.downloads import download
from metaloom.dashboards.episodes.sorting import SORTED, SortedScans
from metaloom.workers.records.episode import EPISODE_COLUMNS
from metaloom.workers.records.results import mean_interval
from tests.support.episode_parts import indexed


def every(folder: Path, **asked: Any) -> list[dict[str, Any]]:
    return queries.episode_rows(folder.parents[1], "first", limit=None, **asked).rows


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("sort", ["accuracy_after", "-accuracy_after", "loss_after", "-step"])
@pytest.mark.parametrize("where", [None, "loss_after < 1.5 and phase == 'train'"])
def test_rows_are_sorted_and_ties_keep_their_order(
    search_of_parts: Path, sort: str, where: str | None, built: bool
) -> None:
    rows, column = every(search_of_parts, where=where), sort.removeprefix("-")
    expected = sorted(rows, key=lambda row: row[column] * (-1 if sort.startswith("-") else 1))
    question = EpisodeQuestion.of({"sort": sort, **({"where": where} if where else {})})
    index, scans, found = indexed(search_of_parts, built=built), SortedScans(), list[dict[str, Any]]()
    for number in range(99):
        page = scans.page(index, question, "first", number=number, size=11, time_s=20)
        found += page.rows
        assert page.is_full
        if not page.has_more:
            break
    assert found == expected


def test_a_sort_that_runs_out_of_time_goes_on(search_of_parts: Path) -> None:
    question = EpisodeQuestion.of({"sort": "-loss_after", "where": "seed > 0"})
    index, expected = indexed(search_of_parts), sorted(every(search_of_parts), key=lambda row: -row["loss_after"])
    for _ in range(30):
        page = SORTED.page(index, question, "first", size=5, time_s=0.0)
        if page.is_full:
            break
    assert page.is_full
    assert page.rows == expected[:5]


def test_counts_are_exact_and_go_on(search_of_parts: Path) -> None:
    index, where = indexed(search_of_parts), "loss_after < 1 and accuracy_after > 0.3"
    assert known_total(index, EpisodeQuestion.of({"phase": "train"})) == len(every(search_of_parts, phase="train"))
    question = EpisodeQuestion.of({"where": where})
    assert known_total(index, question) is None
    count = count_on(index, question, time_s=20)
    assert (count.rows, count.going_on) == (len(every(search_of_parts, where=where)), None)
    rows, place = 0, None
    for _ in range(30):
        step = count_on(index, question, rows, place, time_s=0.0)
        assert step.rows >= rows
        rows, place = step.rows, step.going_on
        if place is None:
            break
    assert rows == count.rows


def test_a_download_holds_the_filtered_rows(search_of_parts: Path) -> None:
    where = "accuracy_after >= 0.4"
    expected, index = every(search_of_parts, where=where), indexed(search_of_parts)
    question = EpisodeQuestion.of({"where": where})
    chunks = list(download(index, question, "first", "parquet"))
    assert len(chunks) > 5, "part by part"
    table = parquet.read_table(pa.BufferReader(b"".join(chunks)))
    assert table.to_pylist() == expected
    text = b"".join(download(index, question, "first", "csv")).decode()
    head, *lines = csv.reader(io.StringIO(text))
    assert head == list(EPISODE_COLUMNS)
    assert len(lines) == len(expected)
    row = dict(zip(head, lines[-1], strict=True))
    assert json.loads(row["class_ids"]) == expected[-1]["class_ids"]
    assert float(row["loss_after"]) == expected[-1]["loss_after"]
    assert row["hypergradient_norm"] == ""
    assert row["search"] == "first"


@pytest.mark.parametrize("phase", ["train", "validation"])
def test_hard_classes_have_the_mean_of_their_episodes(search_of_parts: Path, phase: str) -> None:
    rows = every(search_of_parts, trial=1, phase=phase)
    if phase == "validation":  # the same episodes at every validation: the newest alone count
        rows = [row for row in rows if row["step"] == max(row["step"] for row in rows)]
    found = class_scores(indexed(search_of_parts), EpisodeQuestion.of({"trial": "1", "phase": phase}))
    assert found is not None
    assert found.episodes == len(rows)
    assert found.metric == "accuracy"
    for one in found.classes:
        scores = [row["accuracy_after"] for row in rows if one.class_ids[0] in row["class_ids"]]
        assert (one.mean, one.low, one.high) == mean_interval(scores, metric="accuracy")
        assert one.episodes == len(scores)
    means = [one.mean for one in found.classes]
    assert means == sorted(means)
    assert found.of_classes == len({one for row in rows for one in row["class_ids"]}) == len(found.classes)
    pairs = dict[tuple[int, ...], list[float]]()
    for row in rows:
        for pair in combinations(sorted(row["class_ids"]), 2):
            pairs.setdefault(pair, []).append(row["accuracy_after"])
    often = {pair: scores for pair, scores in pairs.items() if len(scores) >= 5}
    assert {one.class_ids: one.episodes for one in found.pairs} == {pair: len(one) for pair, one in often.items()}
    assert all(one.mean == pytest.approx(statistics.fmean(often[one.class_ids])) for one in found.pairs)


def test_without_episodes_no_class_is_hard(search_of_parts: Path) -> None:
    assert class_scores(indexed(search_of_parts), EpisodeQuestion.of({"trial": "1", "phase": "test"})) is None
