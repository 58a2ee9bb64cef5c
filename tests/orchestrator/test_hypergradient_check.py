"""What ``metaloom check`` says where a hypergradient is not exact: why, as far as it is known."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.hypergradient_check import check_experiment

DIGITS = {"source": "digits", "batch": 10, "meta_batch": 10, "meta_size": 20, "queries": 10}
CELLS = {"kind": "cells", "relaxation": "sampled", "nodes": 3, "cells": 1, "channels": 2}
SINE = {"source": "sinusoid", "shots": 3, "queries": 3}
SMALL = {"kind": "mlp", "hidden": [4]}
ONE = {"meta_batch": 1, "strategy": "loop"}  # episode


def checked(folder: Path, experiment: dict[str, Any]) -> dict[str, Any]:
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment), encoding="utf-8")
    return check_experiment(str(file), [], store=folder / "store")


def test_a_choice_without_a_derivative_is_no_slope_and_by_design(tmp_path: Path) -> None:
    document = checked(tmp_path, {"tasks": DIGITS, "learner": {"method": "darts", "architecture": CELLS}, "outer": ONE})
    assert document["knobs"] == {"learner.architecture": None}  # JSON has no infinity
    assert "By design: the choice of an operation has no derivative" in document["verdict"]


@pytest.mark.parametrize(("method", "kind"), [("learned_optimizer", "learned_optimizer"), ("meta_lstm", "meta_lstm")])
def test_an_inner_gradient_held_constant_is_named_where_it_is(tmp_path: Path, method: str, kind: str) -> None:
    update = {"kind": kind, "hidden": 3, "steps": 3, "second_order": False}
    learner = {"method": method, "architecture": SMALL | {"activation": "tanh"}, "update": update}
    document = checked(tmp_path, {"tasks": SINE, "learner": learner, "outer": ONE})
    assert "By design: the inner gradient counts as a constant (second_order: false)" in document["verdict"]
    learner["update"] = update | {"second_order": True}
    exact = checked(tmp_path, {"tasks": SINE, "learner": learner, "outer": ONE})
    assert exact["verdict"].startswith("Every hypergradient is exact"), exact["knobs"]


def test_an_estimator_that_leaves_terms_out_is_sent_to_one_that_does_not(tmp_path: Path) -> None:
    experiment = {"tasks": SINE, "learner": {"method": "maml", "architecture": SMALL}}
    document = checked(tmp_path, experiment | {"outer": {**ONE, "hypergradient": "first_order"}})
    assert document["verdict"].endswith("compare with --set outer.hypergradient=unroll")
    assert not document["details"]["learner.initialization"]["exact"]


def test_implicit_maml_as_shipped_is_exact_on_the_sinusoid_tasks(tmp_path: Path) -> None:
    """At the paper's proximal strength with ReLU it was not: 0.8, with an inner gradient of norm 0.39."""
    document = check_experiment({"tasks": {"source": "sinusoid"}, "learner": "imaml", "outer": ONE}, store=tmp_path)
    assert document["verdict"].startswith("Every hypergradient is exact")
    assert document["knobs"]["learner.initialization"] < 1e-5
    assert document["estimators"]["unroll"]["errors"]["learner.initialization"] < 1e-5


def test_nothing_learned_is_said_and_nothing_computed(tmp_path: Path) -> None:
    document = checked(tmp_path, {"tasks": DIGITS, "learner": {"method": "cross_entropy", "architecture": SMALL}})
    assert document["knobs"] == {} == document["estimators"]
    assert document["verdict"] == "No knob is learned: there is no hypergradient to compare."


def test_an_estimator_that_flags_its_gradient_is_compared_with_those_that_do_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bent = SMALL | {"activation": "tanh"}
    learner = {"method": "imaml", "architecture": bent, "update": {"steps": 2, "rate": 0.01}}
    experiment = {"tasks": SINE, "learner": learner, "inner": {"proximal": 0.001}, "outer": ONE}
    document = checked(tmp_path, experiment)
    assert "negative curvature" in document["flagged"] and document["verdict"] == document["flagged"]
    assert document["knobs"] == {"learner.initialization": None}
    assert "negative curvature" in document["estimators"]["conjugate_gradient"]["refused"]
    assert document["estimators"]["unroll"]["errors"]["learner.initialization"] < 1e-5
    capfd.readouterr()
    assert cli.run(["check", str(tmp_path / "experiment.yaml"), "--store", str(tmp_path / "store")]) == 2
    told = " ".join(capfd.readouterr().out.split())
    assert "negative curvature" in told and "unroll" in told and "no slope" not in told
    assert cli.run(["check", str(tmp_path / "experiment.yaml"), "--store", str(tmp_path / "store"), "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["flagged"]


def test_of_many_learned_knobs_the_table_shows_each_estimators_worst(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loss = {"kind": "mixture", **{name: {"learn": {"start": 0.5}} for name in ("cross_entropy", "squared", "absolute")}}
    update = {"rate": "learn", "momentum": {"learn": {"start": 0.5}}, "steps": 2}
    learner = {"method": "meta_weight_net", "architecture": SMALL, "loss": loss, "update": update}
    experiment = {"tasks": DIGITS, "learner": learner, "inner": {"mode": "episodic"}, "outer": ONE}
    document = checked(tmp_path, experiment)
    assert len(document["knobs"]) == 6
    assert cli.run(["check", str(tmp_path / "experiment.yaml"), "--store", str(tmp_path / "store")]) == 0
    told = capfd.readouterr().out
    assert "largest error" in told and "…" not in told
