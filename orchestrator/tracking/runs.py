"""The runs of one MLflow experiment, written in as few calls as possible.

Call ``client.quieten`` before importing this module, because MLflow reads its environment at import. Measured on MLflow
3.17: of eight processes that open a new SQLite file, seven die in its migrations, so a lock guards the first contact.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import filelock
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from metaloom.orchestrator.store import prepare_database
from metaloom.orchestrator.tracking.client import MLFLOW_ARTIFACTS, MLFLOW_DATABASE, tracking_uri

LONGEST_PARAM = 6000  # longer ones are cut by MLflow itself, with a warning each
LONGEST_KEY = 250
METRICS_A_CALL, PARAMS_A_CALL = 1000, 100
LONGEST_TAG = 5000
REFUSED_IN_KEYS = re.compile(r"[^\w\-. :/]")


def connect(store: Path, uri: str, experiment: str, artifacts: str | None) -> tuple[MlflowClient, str]:
    """Return a client of ``uri`` and the id of the experiment, made if it is missing.

    Takes 2 s on a fresh database; raises MLflow's own errors.

    Args:
        artifacts: Folder or URI for the experiment's files; None: the store's folder with the store's database, else
            the server's choice.
    """
    if artifacts is not None and "://" not in artifacts:
        artifacts = Path(artifacts).expanduser().absolute().as_uri()
    local = uri.startswith("sqlite:")
    if local and artifacts is None:
        artifacts = (store.absolute() / MLFLOW_ARTIFACTS).as_uri()
    with filelock.FileLock(store / "mlflow.lock", timeout=120) if local else nullcontext():
        if uri == tracking_uri(store, None):
            prepare_database(store / MLFLOW_DATABASE)
        client = MlflowClient(tracking_uri=uri)
        return client, _experiment_id(client, experiment, artifacts)


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another driver has made it
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


@dataclass
class _Batch:
    """The unsent values of one run."""

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)  # name, value, milliseconds, step
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Runs:
    """The runs of one MLflow experiment. ``flush`` sends metrics, parameters and tags."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self.experiment = experiment
        self.client = client
        self._batches: defaultdict[str, _Batch] = defaultdict(_Batch)

    def find(self, tag: str, value: str) -> dict[str, dict[str, str]]:
        """Return the runs whose ``tag`` is ``value``: run id to tags."""
        runs, token, more = dict[str, dict[str, str]](), None, True
        while more:
            query = f"tags.`{tag}` = '{value}'"
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            runs |= {str(run.info.run_id): dict(run.data.tags) for run in page}
            token, more = page.token, bool(page.token)
        return runs

    def create(self, tags: Mapping[str, str], milliseconds: int) -> str:
        """Make a run, which begins as RUNNING, and return its id."""
        run = self.client.create_run(self.experiment, start_time=milliseconds, tags=dict(tags))
        return str(run.info.run_id)

    def metric(self, run: str, name: str, value: float, milliseconds: int, step: int) -> None:
        """Log one value; the same value at the same time is stored once."""
        self._batches[run].metrics.append((_key(name), float(value), milliseconds, step))

    def params(self, run: str, values: Mapping[str, str]) -> None:
        """Log parameters, which must not change later."""
        self._batches[run].params |= {_key(name): value[:LONGEST_PARAM] for name, value in values.items()}

    def tag(self, run: str, name: str, value: str) -> None:
        """Set a tag."""
        self._batches[run].tags[name] = value[:LONGEST_TAG]

    def upload(self, run: str, path: Path, into: str | None = None) -> None:
        """Store a file in the folder ``into``, or a folder under its own name; do nothing if it does not exist."""
        if path.is_dir():
            self.client.log_artifacts(run, str(path), path.name)
        elif path.is_file():
            self.client.log_artifact(run, str(path), into)

    def flush(self) -> None:
        """Send the kept values of each run, in one call if they fit."""
        for run, batch in self._batches.items():
            metrics = [Metric(*metric) for metric in batch.metrics]
            params = [Param(*param) for param in batch.params.items()]
            tags = [RunTag(*tag) for tag in batch.tags.items()]
            while metrics or params or tags:
                self.client.log_batch(run, metrics[:METRICS_A_CALL], params[:PARAMS_A_CALL], tags, synchronous=True)
                metrics, params, tags = metrics[METRICS_A_CALL:], params[PARAMS_A_CALL:], []
        self._batches.clear()


def _key(name: str) -> str:
    """Return ``name`` as MLflow accepts it for a metric or parameter."""
    return REFUSED_IN_KEYS.sub("_", name)[:LONGEST_KEY]
