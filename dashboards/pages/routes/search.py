"""``/searches/NAME``: one search, live."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from metaloom.dashboards.pages.context import open_store, render
from metaloom.workers.records import ranking

ROUTER = APIRouter()


@ROUTER.get("/searches/{name}", response_class=HTMLResponse)
def search(request: Request, name: str) -> HTMLResponse:
    """Show a search."""
    record = open_store(request).record(name)
    return render(request, "search.html", name=name, record=record, best=ranking.best(record), trials=record.trials)
