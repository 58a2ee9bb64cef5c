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

# In memory's speed, in a folder of its own, so that a killed parent leaves nothing beside the store's databases.
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
    # a session of its own: Ctrl-C ends the search, whose records are still to be sent
    command = [sys.executable, "-c", _MIGRATIONS, str(path.parent / client.MLFLOW_ARTIFACTS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as child:
        import_module("metaloom.orchestrator.tracking.runs")  # MLflow, a second too, meanwhile
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
