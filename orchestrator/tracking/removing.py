"""Removes the runs of a search from MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.orchestrator import credentials
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.tracking import client as tracking_client
from metaloom.orchestrator.tracking.outbox import first_line
from metaloom.orchestrator.tracking.projection import id_of, own_database
from metaloom.orchestrator.tracking.writing import SEARCH_ID_TAG
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

KEEPING = "--keep-runs removes the search and leaves its runs in MLflow"


def remove_runs(folder: Path, search: SearchRecord, *, store: Path) -> int:
    """Delete the runs of a search with their files, and its experiment if nothing else is in it; return their number.

    MLflow keeps deleted runs without their files, hidden, until ``mlflow gc``.

    Raises:
        StoreError: MLflow cannot be reached, or refuses. What is left can be removed by another call.
    """
    tracking = (search.created.get("experiment") or {}).get("tracking") or {}
    given = tracking.get("uri")
    if not given and not (store / tracking_client.MLFLOW_DATABASE).exists():
        return 0
    if not given:
        own_database(store).prepare()  # in a moved store it names the former places of the files
    uri = credentials.resolved(store, tracking_client.tracking_uri(store, given))
    tracking_client.quieten()
    with _explained():
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        search_id, count = id_of(folder, search.former_names, search.created_at or 0.0), 0
        named = tracking.get("experiment")
        for name in dict.fromkeys([named] if named else [folder.name, *search.former_names]):
            experiment = client.get_experiment_by_name(name)
            if experiment is None or experiment.lifecycle_stage == "deleted":
                continue
            for run in _runs(client, experiment.experiment_id, f"tags.`{SEARCH_ID_TAG}` = '{search_id}'"):
                get_artifact_repository(run.info.artifact_uri, tracking_uri=uri).delete_artifacts()
                client.delete_run(run.info.run_id)
                count += 1
            if not named:
                _remove_if_empty(client, experiment, search_id)
    return count


def _runs(client: "MlflowClient", experiment: str, query: str) -> "Iterator[Run]":
    """Yield the runs that match, page by page; each is deleted before the next page is asked for."""
    while page := client.search_runs([experiment], query, max_results=1000):
        yield from page


def _remove_if_empty(client: "MlflowClient", experiment: Any, search_id: str) -> None:
    """Delete an experiment without runs and models. Its name is free afterwards: MLflow would restore it otherwise."""
    number = experiment.experiment_id
    if client.search_runs([number], max_results=1) or client.search_logged_models([number], max_results=1):
        return
    client.rename_experiment(number, f"{experiment.name} (removed {search_id})")
    client.delete_experiment(number)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what MLflow, its database or its server raise into a StoreError with advice."""
    try:
        yield
    except Exception as error:  # MLflow's, SQLAlchemy's, requests' and the file system's have no other parent
        problem = f"the search's runs cannot be removed from MLflow: {first_line(error)}"
        raise StoreError(f"{problem}; the search is still there; repeat the command, or {KEEPING}") from error
