"""Registers a bundle as a version of a model in MLflow's registry, beside the run that it comes from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metaloom.orchestrator import credentials
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.store import store_option
from metaloom.orchestrator.tracking import client as tracking_client
from metaloom.orchestrator.tracking.outbox import first_line
from metaloom.orchestrator.tracking.projection import own_database
from metaloom.workers.records.names import MANIFEST_FILE
from metaloom.workers.records.search import SearchRecord

ARTIFACTS = "bundle"  # before the start of the bundle's digest: a trial may be exported in several ways


def register_bundle(
    bundle: Path, model: str, *, name: str, search: SearchRecord, run_id: str | None, store: Path
) -> int:
    """Log a bundle to its trial's run, and register it; return the version.

    Args:
        bundle: The bundle's folder.
        model: The registered model, which is made if there is none.
        name: The search it comes from.
        search: Its record, whose ``tracking`` names the server.
        run_id: The run of its trial.
        store: Folder of all records.

    Raises:
        StoreError: MLflow has no such run, cannot be reached, or refuses the name.
    """
    tracking = (search.created.get("experiment") or {}).get("tracking") or {}
    given = tracking.get("uri")
    if run_id is None:
        sync = f"metaloom sync {name}{store_option(store)}"
        raise StoreError(f"--register: MLflow has no run of this trial yet; send it first: {sync}")
    if not given:
        own_database(store).prepare()
    uri = credentials.resolved(store, tracking_client.tracking_uri(store.absolute(), given))
    tracking_client.quieten()
    with _explained(model):
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        run = client.get_run(run_id)
        place = f"{ARTIFACTS}-{json.loads((bundle / MANIFEST_FILE).read_text())['sha256'][:12]}"
        client.log_artifacts(run_id, str(bundle), place)
        with suppress(MlflowException):  # it is there; any other refusal comes again with the version
            client.create_registered_model(model)
        source = f"{run.info.artifact_uri}/{place}"
        version = client.create_model_version(model, source=source, run_id=run_id, tags={"metaloom.search": name})
        return int(version.version)


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turn what MLflow, its database or its server raise into a StoreError with advice."""
    try:
        yield
    except Exception as error:  # MLflow's, SQLAlchemy's, requests' and the file system's have no other parent
        raise StoreError(
            f"--register {model}: {first_line(error)}; the bundle is written, and mlflow.register_model takes it later"
        ) from error
