"""The nine secure defaults, each with its present state on this machine and what to do about it (``metaloom doctor``).

SECURITY.md says what each promises.
"""

import os
import shlex
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from metaloom.learners.redaction import redacted
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.store import checked_name
from metaloom.orchestrator.tracking.client import FORCED_ON_SERVERS, QUIET
from metaloom.workers.records.journal import RecordsError, first_payload
from metaloom.workers.records.names import JOURNAL_FILE, SEARCHES_FOLDER

OPEN_TO_OTHERS = 0o077
MOST_SHOWN = 3
UI_VARIABLES = ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "MLFLOW_SERVER_X_FRAME_OPTIONS")


@dataclass(frozen=True)
class SecurityFinding:
    """The state of one secure default.

    Attributes:
        what: The default.
        state: How it is here.
        advice: What to do; empty where nothing is needed.
    """

    what: str
    state: str
    advice: str = ""


def examine_security(store: Path, ray: str | None) -> list[SecurityFinding]:
    """Return the state of the nine defaults, in the order of SECURITY.md; writes nothing.

    Args:
        store: Whose files are looked at, if it exists.
        ray: What a Ray that was started said of its own sockets and token; None if it was not tried.
    """
    return [
        SecurityFinding("Ray on this machine", ray or "not tried", "" if ray else "leave --no-ray out"),
        _cluster(),
        _server("the MLflow UI", "127.0.0.1; other hosts and origins are refused; no login", UI_VARIABLES),
        _server("MLflow", "no telemetry, no unpickling, no job runner", [*QUIET, *FORCED_ON_SERVERS]),
        _files(store),
        _code(),
        _names(),
        _secrets(store),
        SecurityFinding("known holes of packages", "not looked at here", "in a checkout: make audit"),
    ]


def _cluster() -> SecurityFinding:
    what = "a Ray cluster"
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return SecurityFinding(what, "joined with --address only, and by a token (RAY_AUTH_MODE=token)")
    return SecurityFinding(what, "refused without a token", "before --address: RAY_AUTH_MODE=token, here and there")


def _server(what: str, state: str, variables: Iterable[str]) -> SecurityFinding:
    """Compare the user's variables with those that MLflow gets by default."""
    usual = {**QUIET, **dict.fromkeys(UI_VARIABLES)}
    changed = sorted({name for name in variables if name in os.environ and os.environ[name] != usual.get(name)})
    changed = [name for name in changed if name not in FORCED_ON_SERVERS]
    if not changed:
        return SecurityFinding(what, state)
    return SecurityFinding(what, f"changed by {', '.join(changed)}", "unset what is not meant")


def _files(store: Path) -> SecurityFinding:
    """Say whether other users of the machine reach the store; within a folder of mode 0700 they reach no file."""
    what = "files of the store"
    if not store.is_dir():
        return SecurityFinding(what, f"{store} does not exist yet; it is made for its owner only (0700)")
    mode = stat.S_IMODE(store.stat().st_mode)
    if mode & OPEN_TO_OTHERS:
        return SecurityFinding(
            what, f"{store} is open to others ({mode:04o})", f"chmod -R go-rwx {shlex.quote(str(store))}"
        )
    return SecurityFinding(what, f"{store} is for its owner only ({mode:04o})")


def _code() -> SecurityFinding:
    """Name the packages whose code runs here because they are installed; experiment files name no other."""
    groups = [group for group in entry_points().groups if group.startswith("metaloom.")]
    packages = sorted({plugin.module.split(".")[0] for group in groups for plugin in entry_points(group=group)})
    state = "an experiment file or a bundle runs no code without --trust-code"
    if not packages:
        return SecurityFinding("code", state)
    return SecurityFinding("code", f"{state}; plugins run: {', '.join(packages)}", "uninstall what is not meant")


def _names() -> SecurityFinding:
    refused = 0
    attempts = ("../evil", "/evil", ".evil", "a\nb", "<b>")
    for name in attempts:
        with suppress(SearchError):
            checked_name(name)
            continue
        refused += 1
    return SecurityFinding("names", f"{refused} of {len(attempts)} that would leave the store or a page are refused")


def _secrets(store: Path) -> SecurityFinding:
    """Look for journals that hold a password, as version 0.2 and earlier wrote them."""
    what, found = "passwords and tokens", []
    for journal in sorted((store / SEARCHES_FOLDER).glob(f"*/{JOURNAL_FILE}")):
        with suppress(RecordsError, ValueError):  # a damaged journal is the business of other commands
            if (stored := first_payload(journal, as_stored=True)) != first_payload(journal):
                found.append((journal.parent.name, stored))
    if not found:
        return SecurityFinding(what, "none in the journals; those of addresses are in the file credentials (0600)")
    names = ", ".join(name for name, _ in found[:MOST_SHOWN])
    uris = {redacted(str(((one.get("experiment") or {}).get("tracking") or {}).get("uri"))) for _, one in found}
    return SecurityFinding(what, f"in {len(found)} journals ({names})", f"change the password of {', '.join(uris)}")
