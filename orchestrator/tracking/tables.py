"""How MLflow makes the tables of its database; each function imports MLflow itself."""

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.private_api import mlflow_schemas
from metaloom.orchestrator.tracking import client
from metaloom.orchestrator.tracking.databases import Tables, sqlite_uri

# It writes in a temporary folder, so that a killed process leaves nothing beside the store's databases, and without
# waiting for the disk: the caller does that once, for the whole file.
_MIGRATIONS = """
import sys, tempfile
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine

event.listen(Engine, "connect", lambda connection, record: connection.execute("PRAGMA synchronous=OFF"))
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

with tempfile.TemporaryDirectory() as folder:
    made = Path(folder) / "made.db"
    SqlAlchemyStore(f"sqlite:///{made}", sys.argv[1]).engine.dispose()
    sys.stdout.buffer.write(made.read_bytes())
"""


def make_mlflow_tables(path: Path) -> None:
    """Make a database by MLflow's own migrations, in another process: they take a second of computing.

    Raises:
        StoreError: They failed there.
    """
    client.quieten()
    # Ctrl-C does not reach it: the search that it ends still has records to send
    command = [sys.executable, "-c", _MIGRATIONS, str(path.parent / client.MLFLOW_ARTIFACTS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as child:
        import_module("metaloom.orchestrator.tracking.runs")  # MLflow, which takes a second, while the other works
        made, problem = child.communicate()
    if child.returncode or not made:
        lines = problem.decode(errors="replace").strip().splitlines() or [f"exit status {child.returncode}"]
        raise StoreError(f"{path}: the tables of MLflow could not be made: {lines[-1]}")
    path.write_bytes(made)


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
