"""``/``: all searches of the store, live, to be filtered, sorted and compared."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from metaloom.dashboards.pages.context import open_store, render, services_of, settings_of
from metaloom.dashboards.search_cards import SORTS, chosen_cards, sparkline
from metaloom.dashboards.search_view import cards_of
from metaloom.learners.errors import BadInput
from metaloom.workers.records.names import RUNNING

ROUTER = APIRouter()


@ROUTER.get("/", response_class=HTMLResponse)
def searches(request: Request) -> HTMLResponse:
    """Show the list."""
    return render(request, "searches.html", **_list(request))


@ROUTER.get("/parts/searches", response_class=HTMLResponse)
def rows(request: Request) -> HTMLResponse:
    """Return the rows that are asked for; the browser's address follows what the user has chosen."""
    values = _list(request)
    answer = render(request, "parts/searches.html", **values)
    if "chosen" in request.query_params and not values["problem"]:
        answer.headers["HX-Replace-Url"] = f"/?{values['query']}" if values["query"] else "/"
    return answer


@ROUTER.get("/searches/{name}/parts/change", response_class=HTMLResponse)
def change(request: Request, name: str) -> HTMLResponse:
    """Return the forms that rename, annotate and delete a search, which lead to its control room."""
    open_store(request).version(name)  # an unknown search is told as such
    card = next(card for card in cards_of(open_store(request)) if card.row.name == name)
    running = "It runs now: stop it first, as a running search is not changed." if card.row.state == RUNNING else ""
    trials = sum(card.row.trials.values())
    return render(request, "parts/change.html", name=name, trials=trials, trouble=running)


def _list(request: Request) -> Mapping[str, Any]:
    cards, params = cards_of(open_store(request)), request.query_params
    text, states, sort = params.get("q", "").strip(), tuple(params.getlist("state")), params.get("sort", "")
    problem = ""
    try:
        shown = chosen_cards(cards, text=text, states=states, sort=sort)
    except BadInput as refusal:
        shown, problem, sort = list(cards), str(refusal), ""
    filtered = [*([("q", text)] if text else []), *(("state", state) for state in states)]
    return {
        "cards": shown,
        "of": len(cards),
        "text": text,
        "states": sorted({card.row.state for card in cards} | {*states}),
        "asked_states": states,
        "sort": sort,
        "query": urlencode([*filtered, *([("sort", sort)] if sort else [])]),
        "orders": {name: _order(name, sort, filtered) for name in SORTS},
        "compared": params.getlist("names"),
        "changes": services_of(request).control is not None and not settings_of(request).read_only,
        "problem": problem,
        "sparkline": sparkline,
    }


def _order(name: str, sort: str, filtered: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the query of the next order by a column (up, down, the newest first), and the present one's direction."""
    following = {name: f"-{name}", f"-{name}": ""}.get(sort, name)
    direction = {name: "ascending", f"-{name}": "descending"}.get(sort, "none")
    return urlencode([*filtered, *([("sort", following)] if following else [])]), direction
