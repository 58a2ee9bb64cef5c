"""How far a process is that plays episodes for a page."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from metaloom.dashboards.pages.context import open_store, services_of
from metaloom.dashboards.pages.services import ReplayState
from metaloom.workers.records import names as records

NOT_LENT = "this server plays no episodes"


def replay_values(request: Request, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of what is wanted of the process, for a template; it is begun if it is new."""
    replays = services_of(request).replays
    cache = str((open_store(request).path / records.CACHE_FOLDER).absolute())
    if replays is None:
        return {"replay": ReplayState("failed", problem=NOT_LENT)}
    return {"replay": replays.state({**wanted, "cache": cache})}
