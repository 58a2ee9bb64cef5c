"""P8's protocol: its experiments are sound, and its rows are means and paired differences of the scores."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.reproductions import many_sets
from benchmarks.reproductions.series_archive import Division
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve

SETS = Division(["A", "B"], ["C"], ["D", "E"])


@pytest.mark.parametrize("name", [*many_sets.LEARNED, *many_sets.CONTROLS])
def test_each_way_to_learn_is_an_experiment(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "archive.npz"
    file.touch()
    monkeypatch.setenv("METALOOM_UCR", str(file))
    learner = {**many_sets.LEARNED, **many_sets.CONTROLS}[name]
    experiment = load_experiment(many_sets.experiment(SETS, SETS.train, learner, 5))
    tasks = resolve(experiment, defaults(experiment)).tasks
    assert [tasks[split][0]["set"] for split in ("sources", "validation", "test")] == [["A", "B"], ["C"], ["D", "E"]]


def test_the_rows_are_means_and_paired_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [f"{name}, {number}" for name in many_sets.LEARNED for number in many_sets.NUMBERS]

    def scores(seed: int, cache: Path) -> dict[str, Any]:
        names = [*asked, *many_sets.CONTROLS]
        each = [[0.01 * place + 0.1 * seed, 0.01 * place + 0.5] for place in range(len(names))]
        return {name: {"1-shot": one, "5-shot": one[::-1]} for name, one in zip(names, each, strict=True)}

    monkeypatch.setattr(many_sets, "seed_of", scores)
    rows = {row.what: row for row in many_sets.p8([0, 1], tmp_path)}
    assert rows["2-way 1-shot: pre-training over 1 set"].values == pytest.approx((0.25, 0.3))
    more = rows["2-way 5-shot: MAML over 18 sets less MAML over 1 set, paired"]
    assert more.values == pytest.approx((0.02, 0.02)) and more.interval == pytest.approx((0.02, 0.02))
    against = rows["2-way 1-shot: MAML over 18 sets less pre-training over 18 sets, paired"]
    assert against.values == pytest.approx((0.09, 0.09))
    assert all(row.reached is None for row in rows.values()) and len(rows) == 2 * (14 + 11)
