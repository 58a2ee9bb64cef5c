"""The benchmark's page: measured in pieces, each with its command, and honest about what is not reached."""

import json
from pathlib import Path

import pytest

from benchmarks.measure import Row
from benchmarks.report import OVERHEAD, PAGE, RECORDS, Setting, keep, record
from benchmarks.reproductions import harness
from metaloom.workers.scoring import Evaluation

SETTING = Setting("a machine", "2.13", "cpu", 5, "vmap")
OVERHEADS = {
    "trials": 60,
    "seconds": 1.0,
    "work": "sleep",
    "machine": "a machine",
    "bare_s": 30.0,
    "search_s": 33.0,
    "recorded_search_s": 36.0,
    "search_with_start_of_workers_s": 40.0,
    "ray_start_s": 5.0,
    "no_work_s_a_trial": 0.1,
    "ratio": 1.1,
    "recorded_ratio": 1.2,
}


def rows(workload: str, slower: float, error: float = 1e-6) -> list[Row]:
    return [
        Row(workload, "metaloom", 1e-6, 1e-7, 10.0, 11.0, 1.0, 5.0),
        Row(workload, "plain loop", error, 1e-7, 10.0 * slower, 12.0, slower, None),
        Row(workload, "slow loop", 1e-6, 1e-7, 40.0, 41.0, 4.0, None),
    ]


def test_a_piece_replaces_its_own_workload_only(tmp_path: Path) -> None:
    keep(tmp_path, {"W1-8": record(rows("W1-8", 1.2), SETTING)})
    keep(tmp_path, {"W3": record(rows("W3", 2.0), SETTING), OVERHEAD: OVERHEADS})
    keep(tmp_path, {"W1-8": record(rows("W1-8", 1.5), SETTING)})
    assert list(json.loads((tmp_path / RECORDS).read_text())) == ["W1-8", "W3", OVERHEAD]
    page = (tmp_path / PAGE).read_text()
    assert "**1.50x**" in page and "**2.00x**" in page and "1.20x" not in page
    assert "`python -m benchmarks --workloads W1-8 --repeats 5 --leave-out vmap` (a machine; torch 2.13; cpu)" in page
    assert "Not measured here yet: W1-32, " in page and "yet: W1-8" not in page
    assert "**1.100x** the wall time" in page and "target 1.15x: reached" in page


def test_what_is_missed_or_wrong_is_said(tmp_path: Path) -> None:
    keep(tmp_path, {"W1-8": record(rows("W1-8", 1.2), SETTING), OVERHEAD: OVERHEADS | {"ratio": 1.3}})
    page = (tmp_path / PAGE).read_text()
    assert "target 1.4x: not reached" in page and "target 1.15x: not reached" in page
    keep(tmp_path, {"W1-8": record(rows("W1-8", 1.2, error=1e-3), SETTING)})
    page = (tmp_path / PAGE).read_text()  # the fast one is wrong, so the race is against the slow one
    assert "1e-03 **wrong**" in page and "**4.00x** the fastest right peer (slow loop)" in page


def test_a_seed_is_measured_once_in_a_commit_and_every_time_with_changed_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = {
        "tasks": {"source": "sinusoid", "shots": 5, "queries": 5},
        "learner": {"method": "maml", "architecture": {"kind": "mlp", "hidden": [4]}},
        "outer": {"steps": 2, "tasks": 1, "validate_every": 2, "validation_episodes": 2},
    }
    measured = []

    def measure() -> dict[int, Evaluation]:
        measured.append(harness.train(experiment, seed=0, cache=tmp_path).test(episodes=3))
        return {2: measured[-1]}

    commit: str | None = "0123abc"
    monkeypatch.setattr(harness, "_commit", lambda: commit)
    first = harness.remembered("V0", 0, tmp_path, measure)
    again = harness.remembered("V0", 0, tmp_path, measure)
    assert len(measured) == 1 and again.seconds == first.seconds
    rows = [harness.row("V0", "", [one.tests[2]]) for one in (first, again)]
    assert rows[0] == rows[1] and again.tests[2].outcomes == measured[0].outcomes
    commit = None
    harness.remembered("V0", 0, tmp_path, measure)
    assert len(measured) == 2
