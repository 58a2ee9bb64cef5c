"""``/compare?names=a,b``: trials on the same test episodes, pair by pair, as ``metaloom compare`` shows them."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from metaloom.dashboards.pages.context import open_store, render, services_of
from metaloom.dashboards.search_view import cards_of
from metaloom.dashboards.text import better_by, scored
from metaloom.learners.errors import MetaloomError

ROUTER = APIRouter()


@ROUTER.get("/compare", response_class=HTMLResponse)
def compare(request: Request) -> HTMLResponse:
    """Compare the best trials of searches, or trials such as ``first:3``."""
    given = [name.strip() for names in request.query_params.getlist("names") for name in names.split(",")]
    names = list(dict.fromkeys(filter(None, given)))
    comparisons, found, problem = services_of(request).comparisons, None, ""
    if comparisons is None:
        problem = "this server compares nothing"
    elif len(names) > 1:
        try:
            found = comparisons.recorded(names)
        except MetaloomError as refusal:  # also what is not tested yet, with the command that tests it
            problem = str(refusal)
    known = [card.row.name for card in cards_of(open_store(request)) if card.row.best is not None]
    values = {"names": names, "known": known, "found": found, "problem": problem}
    return render(request, "compare.html", **values, better_by=better_by, scored_text=scored)
