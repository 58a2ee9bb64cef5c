"""What a trial says of its hypergradient: an implicit one never goes without its solution."""

from pathlib import Path
from typing import Any

import pytest

from metaloom.workers.progress import MOST_UNSOLVED, UNSOLVED_METRIC, solution_text, solution_warning
from metaloom.workers.records.names import INNER_GRADIENT_NORM, RESIDUAL
from metaloom.workers.records.trial import Report, TrialConfig
from metaloom.workers.trial.runner import Trial

PER_SAMPLE: dict[str, Any] = {
    "architecture": {"kind": "linear"},
    "weighting": {"kind": "per_sample"},
    "update": {"kind": "sgd", "rate": 0.5, "steps": 20},
}


def reports(folder: Path, kind: str, **update: Any) -> list[Report]:
    """Learn weights of digits through their solution, in a trial that is taken up again after its first report."""
    inner = {"mode": "episodic", "proximal": 1.0}
    learner = {**PER_SAMPLE, "update": {**PER_SAMPLE["update"], **update}}
    outer = {"steps": 3, "meta_batch": 1, "validate_every": 1, "validation_episodes": 2, "hypergradient": kind}
    config = TrialConfig("implicit", 0, 3, {"source": "digits"}, learner, inner, outer)
    found = [Trial(config, folder / "trial", cache=folder / "cache").advance()]
    trial = Trial(config, folder / "trial", cache=folder / "cache")
    while not trial.finished:
        found.append(trial.advance())
    return found


@pytest.mark.parametrize("kind", ["conjugate_gradient", "normal_equations", "neumann"])
def test_an_implicit_hypergradient_is_reported_with_its_solution(tmp_path: Path, kind: str) -> None:
    found = reports(tmp_path, kind)
    assert all(one.metrics[INNER_GRADIENT_NORM] > 0 and one.metrics[RESIDUAL] >= 0 for one in found)
    told = solution_text(found[-1].metrics)
    assert f"{found[-1].metrics[RESIDUAL]:.2g}" in told
    assert [told in one.notes for one in found] == [False, False, True]


def test_an_unsolved_system_is_warned_of_once(tmp_path: Path) -> None:
    found = reports(tmp_path, "nystrom")  # its default rank is far from this problem's
    assert all(one.metrics[RESIDUAL] > 1 for one in found)
    assert [len(one.warnings) for one in found] == [1, 0, 0]
    assert "linear system is not solved" in found[0].warnings[0]
    assert not solution_warning({**found[0].metrics, RESIDUAL: 1e-3, UNSOLVED_METRIC: 1e-6})


@pytest.mark.parametrize("kind", ["conjugate_gradient", "neumann", "nystrom", "normal_equations", "fixed_point"])
def test_an_inner_loop_far_from_its_solution_is_warned_of_once(tmp_path: Path, kind: str) -> None:
    found = reports(tmp_path, kind, steps=2, rate=0.01)
    assert all(one.metrics[UNSOLVED_METRIC] > MOST_UNSOLVED for one in found)
    assert [sum("inner problem is not solved" in said for said in one.warnings) for one in found] == [1, 0, 0]


def test_an_unrolled_one_has_no_solution_to_tell_of(tmp_path: Path) -> None:
    found = reports(tmp_path, "unroll")
    assert not any(RESIDUAL in one.metrics or one.notes or one.warnings for one in found)
