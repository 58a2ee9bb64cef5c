"""The runs of one MLflow experiment: connecting, and sending in as few calls as possible.

``client.quieten`` must have been called before this module is imported: MLflow reads its environment then. Measured on
MLflow 3.17: of eight processes that meet a fresh SQLite file, seven die in its migrations, so the first contact is made
under a lock.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import filelock
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from metaloom.orchestrator.databases import prepare_database
from metaloom.orchestrator.tracking.client import MLFLOW_ARTIFACTS, MLFLOW_DATABASE, tracking_uri

LONGEST_PARAM = 6000  # longer ones are cut by MLflow itself, with a warning each
LONGEST_KEY = 250
METRICS_A_CALL, PARAMS_A_CALL = 1000, 100
LONGEST_TAG = 5000
REFUSED_IN_KEYS = re.compile(r"[^\w\-. :/]")


def connect(store: Path, uri: str, experiment: str, artifacts: str | None) -> tuple[MlflowClient, str]:
    """Return a client of ``uri`` and the id of the experiment, made if it is not there.

    Takes 2 s on a fresh database; raises MLflow's own errors.

    Args:
        artifacts: Where the experiment's files go, a folder or a URI; None takes the store's own folder
            for its own database, and leaves it to the server otherwise.
    """
    if artifacts is not None and "://" not in artifacts:
        artifacts = Path(artifacts).expanduser().absolute().as_uri()
    if not uri.startswith("sqlite:"):
        client = MlflowClient(tracking_uri=uri)
        return client, _experiment_id(client, experiment, artifacts)
    artifacts = artifacts or (store.absolute() / MLFLOW_ARTIFACTS).as_uri()
    with filelock.FileLock(store / "mlflow.lock", timeout=120):
        if uri == tracking_uri(store, None):
            prepare_database(store / MLFLOW_DATABASE)
        client = MlflowClient(tracking_uri=uri)
        return client, _experiment_id(client, experiment, artifacts)


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another driver was quicker
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


@dataclass
class _Batch:
    """What one run is to be given in as few calls as possible."""

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)  # name, value, milliseconds, step
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Runs:
    """The runs of one MLflow experiment. Metrics, parameters and tags are kept until ``flush``."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self.experiment = experiment
        self._client = client
        self._batches: dict[str, _Batch] = {}

    def find(self, tag: str, value: str) -> dict[str, dict[str, str]]:
        """Return the runs whose ``tag`` is ``value``: run id to tags."""
        found: dict[str, dict[str, str]] = {}
        token = None
        while True:
            query = f"tags.`{tag}` = '{value}'"
            page = self._client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            found |= {str(run.info.run_id): dict(run.data.tags) for run in page}
            token = page.token
            if not token:
                return found

    def create(self, tags: Mapping[str, str], milliseconds: int) -> str:
        """Make a run, which begins as RUNNING, and return its id."""
        run = self._client.create_run(self.experiment, start_time=milliseconds, tags=dict(tags))
        return str(run.info.run_id)

    def metric(self, run: str, name: str, value: float, milliseconds: int, step: int) -> None:
        """Log one value; the same value at the same time is stored once."""
        self._batch(run).metrics.append((_key(name), float(value), milliseconds, step))

    def params(self, run: str, values: Mapping[str, str]) -> None:
        """Log parameters, which must not change later."""
        self._batch(run).params |= {_key(name): value[:LONGEST_PARAM] for name, value in values.items()}

    def tag(self, run: str, name: str, value: str) -> None:
        """Set a tag."""
        self._batch(run).tags[name] = value[:LONGEST_TAG]

    def text(self, run: str, text: str, name: str) -> None:
        """Store ``text`` as artifact ``name``."""
        self._client.log_text(run, text, name)

    def upload(self, run: str, path: Path, into: str | None = None) -> None:
        """Store a file, in a folder if one is named, or a folder under its own name; nothing if it is not there."""
        if path.is_dir():
            self._client.log_artifacts(run, str(path), path.name)
        elif path.is_file():
            self._client.log_artifact(run, str(path), into)

    def resume(self, run: str) -> None:
        """Make a run RUNNING again."""
        self._client.update_run(run, status="RUNNING")

    def end(self, run: str, status: str, milliseconds: int) -> None:
        """End a run as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run, status, milliseconds)

    def flush(self) -> None:
        """Send what was kept, each run's in one call where it fits."""
        for run, batch in self._batches.items():
            metrics = [Metric(*one) for one in batch.metrics]
            params = [Param(*one) for one in batch.params.items()]
            tags = [RunTag(*one) for one in batch.tags.items()]
            while metrics or params or tags:
                self._client.log_batch(run, metrics[:METRICS_A_CALL], params[:PARAMS_A_CALL], tags, synchronous=True)
                metrics, params, tags = metrics[METRICS_A_CALL:], params[PARAMS_A_CALL:], []
        self._batches.clear()

    def _batch(self, run: str) -> _Batch:
        return self._batches.setdefault(run, _Batch())


def _key(name: str) -> str:
    """Return ``name`` as MLflow accepts it for a metric or parameter."""
    return REFUSED_IN_KEYS.sub("_", name)[:LONGEST_KEY]
