"""The password of an address: kept in a file of the store (0600), put back only where a connection is made.

Records hold the address with ``***`` in place of its password, or with ``${NAME}``, an environment variable.
"""

import json
import netrc
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import filelock

from metaloom.learners.redaction import HIDDEN, redacted, remember, secrets_in
from metaloom.orchestrator.errors import SearchError
from metaloom.workers.durable import written_aside
from metaloom.workers.records.journal import RecordsError, first_payload
from metaloom.workers.records.names import CREDENTIALS_FILE, EXPERIMENT_FILE, JOURNAL_FILE

FIELD = "tracking.uri"
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
BY_ENVIRONMENT = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def keep(store: Path, uri: str | None) -> None:
    """Keep an address that has a password in the store's file, and hide the password in this process's texts."""
    secrets = secrets_in(uri or "")
    if uri is None or not secrets:
        return
    for secret in secrets:
        remember(secret)
    path = store / CREDENTIALS_FILE
    with filelock.FileLock(store / f"{CREDENTIALS_FILE}.lock", timeout=60):
        kept = _read(path)
        if kept.get(redacted(uri)) == uri:
            return
        with written_aside(path) as aside:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({**kept, redacted(uri): uri}, file, indent=1)


def resolved(store: Path, uri: str) -> str:
    """Return an address with its passwords and variables filled in; raises SearchError if one is missing."""
    full = _with_password(store / CREDENTIALS_FILE, uri) if HIDDEN in uri else uri
    full = VARIABLE.sub(_value, full)
    for secret in secrets_in(full):
        remember(secret)
    return full


def unencrypted(uri: str) -> str:
    """Return a warning if a connection would show a password to the network; empty if it would not."""
    parts = urlsplit(uri)
    has_password = bool(secrets_in(uri)) or any(os.environ.get(name) for name in BY_ENVIRONMENT)
    if parts.scheme != "http" or not has_password or (parts.hostname or "") in LOCAL_HOSTS:
        return ""
    return f"{redacted(uri)} is not encrypted, and the password is sent to it; use https://"


def _with_password(path: Path, uri: str) -> str:
    kept = _read(path).get(uri)
    if kept is not None:
        return kept
    parts = urlsplit(uri)
    if HIDDEN in parts.netloc and HIDDEN not in parts.query and _is_elsewhere(parts.scheme, parts.hostname or ""):
        return uri.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1)
    raise SearchError(
        f"{FIELD}: the password of {uri} is not in {path}; write it there as "
        f'{{"{uri}": "the address with its password"}}, or set {" or ".join(BY_ENVIRONMENT)}'
    )


def _is_elsewhere(scheme: str, host: str) -> bool:
    """Return whether MLflow itself finds the password of a host: in its variables, or in netrc."""
    if not scheme.startswith("http"):
        return False
    if any(os.environ.get(name) for name in BY_ENVIRONMENT):
        return True
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    return False


def _value(found: re.Match[str]) -> str:
    """Return a variable's value, quoted unless it begins the address and so may be all of it."""
    value = os.environ.get(found[1], "")
    if not value:
        raise SearchError(f"{FIELD}: the environment variable {found[1]} is not set; set it, or change the address")
    return value if found.start() == 0 else quote(value, safe="")


def _read(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise SearchError(f"{path}: cannot be read ({problem}); correct or remove it") from problem
    if not isinstance(kept, dict) or not all(isinstance(uri, str) for uri in kept.values()):
        raise SearchError(f"{path}: allowed is a JSON object of addresses; correct or remove it")
    return kept


def adopt(store: Path, folder: Path) -> str:
    """Keep the password that version 0.2 or earlier wrote into a journal; return a warning, empty without one."""
    try:
        created = first_payload(folder / JOURNAL_FILE, as_stored=True)
        if created == first_payload(folder / JOURNAL_FILE):
            return ""
    except (RecordsError, ValueError):  # a damaged journal is mended by who opens it; the next session adopts
        return ""
    uri = ((created.get("experiment") or {}).get("tracking") or {}).get("uri")
    keep(store, uri)
    file = folder / EXPERIMENT_FILE
    with suppress(FileNotFoundError):
        if redacted(text := file.read_text()) != text:
            file.write_text(redacted(text))
    place = f"{folder / JOURNAL_FILE} and the records of MLflow hold a password"
    return f"{place}, written by an earlier version of metaloom: change the password of {redacted(uri or '')}"
