"""The runs of one search in an MLflow experiment, written in as few calls as possible.

Call ``client.quieten`` before importing this module, because MLflow reads its environment at import. Measured on MLflow
3.17: a call on its SQLite costs 5 to 15 ms however little it writes, so a run that began and ended since the last time
is made with its last tags, written once and ended: three calls.
"""

import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from metaloom.orchestrator.tracking.batches import PARENT, RUNNING, Batch, Batches
from metaloom.orchestrator.tracking.client import MLFLOW_ARTIFACTS, accepted_key, artifact_place, is_refusal
from metaloom.orchestrator.tracking.outbox import Pulse, Warn, first_line

PARENT_TAG = "mlflow.parentRunId"
LONGEST_PARAM = 6000  # longer ones are cut by MLflow itself, with a warning each
METRICS_A_CALL, PARAMS_A_CALL = 1000, 100
LONGEST_TAG = 5000


@dataclass(frozen=True)
class FormerRuns:
    """The runs of a search that was renamed: their tag, and the experiments that may hold them, the oldest first."""

    tag: tuple[str, str]
    experiments: Sequence[str]


def connect(
    store: Path, uri: str, experiment: str, artifacts: str | None, *, former: FormerRuns | None = None
) -> tuple[MlflowClient, str]:
    """Return a client of ``uri`` and the id of the experiment, made if it is missing; raises MLflow's own errors.

    Args:
        artifacts: Folder or URI for the experiment's files; None: the store's folder with the store's database, else
            the server's choice.
        former: Where the runs of a renamed search are; their experiment is renamed, or else taken as it is.
    """
    if artifacts is not None:
        artifacts = artifact_place(artifacts)
    if uri.startswith("sqlite:") and artifacts is None:
        artifacts = (store.absolute() / MLFLOW_ARTIFACTS).as_uri()
    client = MlflowClient(tracking_uri=uri)
    moved = former and _moved_experiment(client, former, experiment)
    return client, moved or _experiment_id(client, experiment, artifacts)


def _moved_experiment(client: MlflowClient, former: FormerRuns, name: str) -> str | None:
    """Return the experiment with the runs of a renamed search, renamed to ``name`` if it holds no others."""
    key, value = former.tag
    for old in reversed(former.experiments):
        experiment = client.get_experiment_by_name(old)
        if experiment is None or experiment.lifecycle_stage == "deleted":
            continue
        ids = [experiment.experiment_id]
        if not client.search_runs(ids, f"tags.`{key}` = '{value}'", max_results=1):
            continue
        is_alone = not client.search_runs(ids, f"tags.`{key}` != '{value}'", max_results=1)
        if is_alone and client.get_experiment_by_name(name) is None:
            client.rename_experiment(experiment.experiment_id, name)
        return str(experiment.experiment_id)
    return None


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


class Runs(Batches):
    """The runs of one search.

    Args:
        pulse: Learns of every answer of MLflow.
        warn: Receives a line for what MLflow refuses.

    Attributes:
        ids: The run of each key.
    """

    def __init__(self, client: MlflowClient, experiment: str, *, uri: str, pulse: Pulse, warn: Warn) -> None:
        super().__init__()
        self.ids: dict[str, str] = {}
        self._client, self._experiment, self._uri, self._pulse, self._warn = client, experiment, uri, pulse, warn
        self._params: dict[str, set[str]] = {}  # those that MLflow has: it refuses others, as of an earlier version
        self._places: dict[str, str] = {}  # of the artifacts: MLflow would look each up in its database

    def __contains__(self, key: str) -> bool:
        return key in self.ids or super().__contains__(key)

    def find(self, tag: str, value: str, *, key_tag: str) -> dict[str, MlflowRun]:
        """Find the search's runs, those whose ``tag`` is ``value``, by their key, the value of ``key_tag``."""
        runs, token, more = dict[str, MlflowRun](), None, True
        while more:
            query = f"tags.`{tag}` = '{value}'"
            with self._pulse.waiting():
                page = self._client.search_runs([self._experiment], query, max_results=1000, page_token=token)
            runs |= {run.data.tags.get(key_tag, PARENT): run for run in page}
            token, more = page.token, bool(page.token)
        self.ids = {key: str(run.info.run_id) for key, run in runs.items()}
        self._places = {key: str(run.info.artifact_uri) for key, run in runs.items()}
        self._params = {key: set(run.data.params) for key, run in runs.items()}
        return runs

    def flush(self) -> None:
        """Send all batches, without what MLflow refuses; raises its other errors."""
        for key in sorted(self.batches):  # the parent first
            batch = self.batches[key]
            if batch.begun is not None and key not in self.ids:
                self._make(key, batch)
            for metrics, params, tags in _calls(batch, self._params.get(key, set())):
                with self._told(key):
                    self._client.log_batch(self.ids[key], metrics, params, tags, synchronous=True)
            self._store(key, batch)
            if batch.status is not None:
                status, milliseconds = batch.status
                with self._told(key):
                    if status == RUNNING:
                        self._client.update_run(self.ids[key], status=status)
                    else:
                        self._client.set_terminated(self.ids[key], status, milliseconds)
        self.batches.clear()
        for name, value in list(self.experiment_tags.items()):
            with self._told(PARENT):
                self._client.set_experiment_tag(self._experiment, name, value[:LONGEST_TAG])
            del self.experiment_tags[name]

    def _make(self, key: str, batch: Batch) -> None:
        tags = {name: value[:LONGEST_TAG] for name, value in batch.tags.items()}
        if key != PARENT:
            tags[PARENT_TAG] = self.ids[PARENT]
        with self._pulse.waiting():
            run = self._client.create_run(self._experiment, start_time=batch.begun, tags=tags)
        self.ids[key], self._places[key] = str(run.info.run_id), str(run.info.artifact_uri)
        batch.tags = {}

    def _store(self, key: str, batch: Batch) -> None:
        """Store the files of a batch."""
        files = [(path, into) for path, into in batch.files if path.exists()]
        if not files and not batch.texts:
            return
        repository = get_artifact_repository(self._places[key], tracking_uri=self._uri)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in batch.texts.items():
                (Path(folder) / name).write_text(content)
                files.append((Path(folder) / name, None))
            for path, into in files:
                with self._told(key):
                    if path.is_dir():
                        repository.log_artifacts(str(path), path.name)
                    else:
                        repository.log_artifact(str(path), into)

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Call MLflow within this context; what it refuses becomes a warning."""
        try:
            with self._pulse.waiting():
                yield
        except MlflowException as error:
            if not is_refusal(error):
                raise
            run = f"trial {key}" if key else "the search"
            self._warn(f"mlflow refused a part of the run of {run}: {first_line(error)}")


def _calls(batch: Batch, known: Set[str]) -> Iterator[tuple[list[Metric], list[Param], list[RunTag]]]:
    """Divide a batch, without its ``known`` parameters, into calls that MLflow accepts; one, if it fits."""
    metrics = [Metric(accepted_key(name), *rest) for name, *rest in batch.metrics]
    named = {accepted_key(name): value[:LONGEST_PARAM] for name, value in batch.params.items()}
    params = [Param(name, value) for name, value in named.items() if name not in known]
    tags = [RunTag(name, value[:LONGEST_TAG]) for name, value in batch.tags.items()]
    while metrics or params or tags:
        yield metrics[:METRICS_A_CALL], params[:PARAMS_A_CALL], tags
        metrics, params, tags = metrics[METRICS_A_CALL:], params[PARAMS_A_CALL:], []
