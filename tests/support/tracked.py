"""A search whose journal a test writes, and what MLflow holds of it."""

import os
import socket
from pathlib import Path
from typing import Any

from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.tracking import client as tracking_client
from metaloom.orchestrator.tracking.outbox import Backlog
from metaloom.orchestrator.tracking.outboxes import start_projections
from metaloom.orchestrator.tracking.writing import SEARCH_TAG, TRIAL_TAG
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event

tracking_client.quieten()

from mlflow.entities import Run  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

STARTED = (records.SEARCH_STARTED, None, {"pid": os.getpid(), "host": socket.gethostname()})
ENDED = (records.SEARCH_ENDED, None, {"state": "finished"})
Told = tuple[str, int | None, dict[str, Any]]


class Search:
    """A search that a test writes the journal of; ``begun``: it has one already."""

    def __init__(self, store: Path, name: str, uri: str | None = None, *, begun: bool = False) -> None:
        self.store, self.uri, self.folder = store, uri, store / "searches" / name
        self.folder.mkdir(parents=True, exist_ok=begun)
        self.journal = Journal(self.folder)
        self.warnings: list[str] = []
        self.now = 1_700_000_000.0
        if begun:
            self.now += len(self.journal.events())
            return
        settings = {"trials": 3, "objectives": [{"metric": records.VALIDATION_ACCURACY, "direction": "maximize"}]}
        (self.folder / "experiment.yaml").write_text("name: given\n")
        experiment = {"seed": 3, "learner": {"method": "maml", "update": {"rate": {"learn": {"start": 0.1}}}}}
        self.tell((records.SEARCH_CREATED, None, {"settings": settings, "experiment": experiment, "seed": 3}))

    def tell(self, *events: Told) -> None:
        self.now += 1.0
        self.journal.append_all([Event(0, self.now, trial, kind, payload) for kind, trial, payload in events])

    def warn(self, line: str) -> None:
        if "which takes long" not in line:  # a loaded machine
            self.warnings.append(line)

    def arguments(self) -> dict[str, Any]:
        return {"store": self.store, "tracking": {"uri": self.uri}, "warn": self.warn}

    def drain(self, timeout_s: float = 60.0) -> list[Backlog]:
        return start_projections(self.folder, **self.arguments()).close(timeout_s)

    def runs(self) -> tuple[Run, dict[str, Run]]:
        """Return the parent run and the trials' runs; asserts that none is there twice."""
        client = self.client()
        experiment = client.get_experiment_by_name(self.folder.name)
        found = client.search_runs([experiment.experiment_id], f"tags.`{SEARCH_TAG}` = '{self.folder.name}'")
        parents = [run for run in found if TRIAL_TAG not in run.data.tags]
        assert len(parents) == 1
        trials = {run.data.tags[TRIAL_TAG]: run for run in found if TRIAL_TAG in run.data.tags}
        assert len(trials) == len(found) - 1
        assert all(run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id for run in trials.values())
        return parents[0], trials

    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=tracking_client.tracking_uri(self.store, self.uri))

    def content(self) -> dict[str, Any]:
        """Return everything MLflow holds of this search, but for the run ids."""
        parent, trials = self.runs()
        client = self.client()
        content = {}
        for name, run in {"parent": parent, **trials}.items():
            points = {
                key: [(one.value, one.step, one.timestamp) for one in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            }
            times = (run.info.status, run.info.start_time, run.info.end_time)
            files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
            content[name] = (times, run.data.params, points, files)
        return content
