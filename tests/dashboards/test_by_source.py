"""The table of data sets: the best trial's validation on each, the hardest first."""

import sys
from pathlib import Path
from typing import Any

from metaloom.dashboards import queries
from metaloom.dashboards.report import report as markdown
from metaloom.dashboards.text import source_cells
from metaloom.orchestrator.command_line.tables import console, show_search
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import TrialConfig
from tests.dashboards.conftest import SUGGESTED, Write, report

EACH = {"easy": [0.9, 0.85, 0.95, 2], "hard": [0.4, 0.3, 0.5, 2]}


def events(**more: Any) -> list[tuple[str, int | None, dict[str, Any]]]:
    last = {**report(5, 0.65, finished=True), **more}
    last["metrics"] = {**last["metrics"], "train_loss/hard": 1.25, "train_loss/other": 0.5}
    config = TrialConfig("first", 0, 0, {"source": "many"}, {"method": "maml"}, {}, {}, {}).to_json()
    return [
        (records.SEARCH_STARTED, None, {"pid": 1, "host": "here"}),
        (records.TRIAL_SUGGESTED, 0, {**SUGGESTED, "knobs": {}, "config": config}),
        (records.TRIAL_STARTED, 0, {"attempt": 1, "worker": ""}),
        (records.TRIAL_REPORTED, 0, {"report": last}),
        (records.TRIAL_FINISHED, 0, {"value": 0.65, "values": {records.VALIDATION_ACCURACY: 0.65}}),
    ]


def test_the_hardest_data_set_comes_first(tmp_path: Path, write_search: Write, capsys: Any) -> None:
    write_search("first", events(by_source=EACH))
    summary = queries.search_summary(tmp_path, "first")
    assert [row["source"] for row in summary["sources"]] == ["hard", "easy", "other"]
    heads, cells = source_cells(summary)
    assert heads[1] == "validation accuracy [95% interval]"
    assert cells[0] == ("hard", "0.4000 [0.3000, 0.5000]", "2", "1.25")
    assert cells[1] == ("easy", "0.9000 [0.8500, 0.9500]", "2", "-") and cells[2] == ("other", "-", "0", "0.5")
    assert "## Data sets of trial 0" in markdown(summary)
    show_search(console(sys.stdout), summary)
    assert "hard" in capsys.readouterr().out


def test_one_data_set_has_no_table(tmp_path: Path, write_search: Write) -> None:
    write_search("first", events())
    summary = queries.search_summary(tmp_path, "first")
    assert "sources" not in summary and source_cells(summary)[1] == [] and "## Data sets" not in markdown(summary)
