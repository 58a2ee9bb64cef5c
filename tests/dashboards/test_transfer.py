"""The transfer curve: the value of a search's trials by how many layers they took from a bundle."""

from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards import figures, plots, queries
from metaloom.dashboards.transfer import transfer_values
from metaloom.learners.errors import BadInput
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import TrialConfig
from tests.dashboards.conftest import Write, story


def events(*starts: dict[str, Any]) -> list[tuple[str, int | None, dict[str, Any]]]:
    """Return the events of finished trials of these initializations, whose values are 0.1, 0.2, ..."""
    told = story({number: 0.1 * (number + 1) for number in range(len(starts))})
    for kind, trial, payload in told:
        if kind == records.TRIAL_SUGGESTED and trial is not None:
            learner = {"initialization": starts[trial]}
            payload["config"] = TrialConfig("first", trial, 0, {}, learner, {}, {}, {}).to_json()
    return told


def taken(layers: int | None, *, freeze: bool = False) -> dict[str, Any]:
    return {"kind": "fine_tuned", "bundle": "b", "layers": layers, "freeze": freeze}


def test_the_curve_has_the_values_by_layers_frozen_and_fine_tuned(tmp_path: Path, write_search: Write) -> None:
    starts = [taken(2), taken(0), taken(2), taken(1, freeze=True), taken(None), {"kind": "learned"}]
    write_search("first", events(*starts))
    search = queries.search_record(tmp_path, "first")
    found = transfer_values(search)
    assert found["frozen"] == {1: [pytest.approx(0.4)]}
    assert list(found["fine-tuned"]) == [0, 2]
    assert sorted(found["fine-tuned"][2]) == pytest.approx([0.1, 0.3])
    (axes,) = plots.PLOTS["transfer"]("first", search).axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert lines["fine-tuned"][0] == [0, 2]
    assert lines["fine-tuned"][1] == pytest.approx([0.2, 0.2])  # the mean of 0.1 and 0.3
    assert (figures.draw_search(tmp_path, "first").folder / "transfer.png").is_file()


def test_one_number_of_layers_is_no_curve(tmp_path: Path, write_search: Write) -> None:
    write_search("first", events(taken(2), taken(2, freeze=True)))
    with pytest.raises(BadInput, match=r"--kind transfer: .*search learner\.initialization\.layers"):
        plots.PLOTS["transfer"]("first", queries.search_record(tmp_path, "first"))
    assert not (figures.draw_search(tmp_path, "first").folder / "transfer.png").exists()
