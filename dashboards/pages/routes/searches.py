"""``/``: all searches of the store."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from metaloom.dashboards.pages.context import open_store, render

ROUTER = APIRouter()


@ROUTER.get("/", response_class=HTMLResponse)
def searches(request: Request) -> HTMLResponse:
    """Show the list."""
    return render(request, "searches.html", searches=open_store(request).listed())
