"""A small trial after a stage on sine tasks, for a test and for a process that may be killed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaloom.orchestrator.executors.hosting import open_trial
from metaloom.workers.heartbeat import Heartbeat
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.runner import Trial

OUTER = {"meta_batch": 2, "validate_every": 5, "validation_episodes": 2, "rate": 0.01, "precision": "float64"}
FINAL = "final.json"


def stage(name: str, steps: int = 20, start: str = "", **outer: Any) -> dict[str, Any]:
    """Return the resolved sections of a stage, which starts from the stage ``start`` if there is one."""
    initialization = {"kind": "fine_tuned", "bundle": f"stage:{start}"} if start else {"kind": "learned"}
    learner = {
        "method": "maml",
        "architecture": {"kind": "mlp", "hidden": [6]},
        "initialization": initialization,
        "update": {"rate": 0.02, "steps": 2},
    }
    sections = {"tasks": {"source": "sinusoid", "shots": 5, "queries": 5}, "learner": learner, "inner": {}}
    return {"name": name, **sections, "outer": {**OUTER, "steps": steps, **outer}}


def config(*stages: Mapping[str, Any], main: Mapping[str, Any] | None = None, trial: int = 0) -> TrialConfig:
    """Return the configuration of a trial after these stages, which starts from the last of them."""
    before = stages or (stage("pretrain"),)
    own = dict(main or stage("adapt", steps=10, start=str(before[-1]["name"])))
    name = own.pop("name")
    return TrialConfig("first", trial, 0, **own, stage=name, stages=before)


def opened(one: TrialConfig, store: Path) -> Trial:
    """Open the trial in a store, as an executor does."""
    directory = store / "searches" / one.search / "trials" / f"{one.trial:04d}"
    directory.mkdir(parents=True, exist_ok=True)
    Heartbeat(directory).begin()
    trial = open_trial(one, directory, cache=store / "cache")
    assert isinstance(trial, Trial)
    return trial


def run(one: TrialConfig, store: Path) -> None:
    """Run a trial to its end, and write its last report beside its records."""
    trial = opened(one, store)
    while not trial.finished:
        trial.advance()
    assert trial.last_report is not None
    (trial.directory / FINAL).write_text(json.dumps(trial.last_report.to_json()))
