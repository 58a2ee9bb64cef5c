"""How MLflow makes the tables of its database; each function imports MLflow itself."""

from collections.abc import Sequence
from pathlib import Path

from metaloom.orchestrator.private_api import mlflow_schemas
from metaloom.orchestrator.tracking import client
from metaloom.orchestrator.tracking.databases import Tables, sqlite_uri


def make_mlflow_tables(path: Path) -> None:
    """Make a database: 3 s of migrations."""
    client.quieten()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(sqlite_uri(path), str(path.parent / client.MLFLOW_ARTIFACTS)).engine.dispose()


def upgrade_mlflow_tables(path: Path) -> None:
    """Upgrade a database as ``mlflow db upgrade`` does."""
    client.quieten()
    from mlflow.db import upgrade

    upgrade.callback(sqlite_uri(path))


def _schemas() -> Sequence[str]:
    client.quieten()
    return mlflow_schemas()


MLFLOW = Tables(
    "mlflow",
    make=lambda path: make_mlflow_tables(path),  # looked up when it is called: tests copy one instead
    upgrade=upgrade_mlflow_tables,
    schemas=_schemas,
)
