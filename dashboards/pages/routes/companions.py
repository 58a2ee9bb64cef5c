"""``/companions/KIND``: starts MLflow's UI or optuna-dashboard, waits for it, and leads to it."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from metaloom.dashboards.pages.context import Fields, address, render, services_of
from metaloom.dashboards.pages.routes.chart_data import trial_number
from metaloom.dashboards.pages.services import Companions, CompanionState
from metaloom.learners.errors import BadInput

ROUTER = APIRouter()


@ROUTER.post("/companions/{kind}/start")
def start(request: Request, kind: str, fields: Fields) -> RedirectResponse:
    """Start one, or take the running one; then wait for it."""
    lent(request).start(kind)
    place = {name: fields[name] for name in ("search", "trial") if fields.get(name)}
    return RedirectResponse(address("companions", kind, **place), status_code=303)


@ROUTER.get("/companions/{kind}", response_class=HTMLResponse)
def companion(request: Request, kind: str, search: str | None = None, trial: str | None = None) -> HTMLResponse:
    """Show how far it is."""
    return render(request, "companion.html", **_values(request, kind, search, trial))


@ROUTER.get("/companions/{kind}/parts/state", response_class=HTMLResponse)
def state(request: Request, kind: str, search: str | None = None, trial: str | None = None) -> HTMLResponse:
    """Return how far it is; the browser goes to it once it runs."""
    values = _values(request, kind, search, trial)
    answer = render(request, "parts/companion.html", **values)
    if values["target"]:
        answer.headers["HX-Redirect"] = values["target"]
    return answer


def lent(request: Request) -> Companions:
    """Return the service; raises BadInput if this server has none."""
    companions = services_of(request).companions
    if companions is None:
        raise BadInput("this server starts no other programs")
    return companions


def _values(request: Request, kind: str, search: str | None, trial: str | None) -> dict[str, Any]:
    companions = lent(request)
    found = companions.state(kind)
    place = {"search": search, "trial": trial}
    target, problem = "", ""
    if found.state == "running":
        target, problem = _target(companions, found, search, trial)
    polled = address("companions", kind, "parts", "state", **place)
    back = "/" if search is None else address("searches", search, *(() if trial is None else ("trials", trial)))
    return {
        "companion": found, "target": target, "problem": problem, "polled": polled, "search": search, "trial": trial,
        "back": back,
    }  # fmt: skip


def _target(companions: Companions, found: CompanionState, search: str | None, trial: str | None) -> tuple[str, str]:
    """Return the address in the running program, or its start page and why there is none."""
    try:
        return companions.address(found.kind, search, trial_number(trial)), ""
    except BadInput as problem:
        return "", str(problem)
