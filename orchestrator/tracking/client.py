"""MLflow's environment, addresses and refusals, without importing it. No telemetry, no pickles.

Measured on MLflow 3.17: an unreachable server blocks a call for minutes unless the retries are few.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

from metaloom.orchestrator.tracking.databases import sqlite_uri

MLFLOW_DATABASE = "mlflow.db"
LONGEST_KEY = 250
REFUSED_IN_KEYS = re.compile(r"[^\w\-. :/]")
MLFLOW_ARTIFACTS = "mlartifacts"

# The timeouts are those of one call; the outbox tries again for longer.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "GIT_PYTHON_REFRESH": "quiet",
}

# For the servers that we start, whatever the user has set.
FORCED_ON_SERVERS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
}


def quieten() -> None:
    """Set MLflow's environment variables, except those that the user has set; call before its import."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # the outbox reports these errors itself


def tracking_uri(store: Path, uri: str | None) -> str:
    """Return ``uri``, or that of the store's own SQLite database."""
    return uri or sqlite_uri(store / MLFLOW_DATABASE)


def artifact_place(given: str) -> str:
    """Return the address of the artifacts' folder, which is given as such or as a path."""
    return given if "://" in given else Path(given).expanduser().absolute().as_uri()


def is_refusal(error: Exception) -> bool:
    """Return whether MLflow refused the content itself, so that a retry cannot help."""
    return getattr(error, "error_code", None) in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}


def flattened(values: Any, prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted names and texts; a learned knob stays one value."""
    if not isinstance(values, dict):
        return {prefix: str(values)}
    if set(values) == {"learn"}:
        learned = values["learn"] or {}
        settings = " ".join(f"{name}={value}" for name, value in learned.items() if value is not None)
        return {prefix: f"learned {settings}".strip()}
    parts = (flattened(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in values.items())
    return {name: text for part in parts for name, text in part.items()}


def accepted_key(name: str) -> str:
    """Return ``name`` as MLflow accepts it for a metric or parameter."""
    return REFUSED_IN_KEYS.sub("_", name)[:LONGEST_KEY]
