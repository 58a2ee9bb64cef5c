"""``/searches/NAME/report.html``: the report of a search as one file, which can be saved and sent."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from metaloom.dashboards.pages.context import address, open_store, render, services_of
from metaloom.dashboards.pages.services import Reports
from metaloom.dashboards.report_page.page import policy
from metaloom.learners.errors import BadInput

ROUTER = APIRouter()


@ROUTER.get("/searches/{name}/report.html")
def report(request: Request, name: str, version: str = "") -> Response:
    """Return the report as the search is now, or as it was at a version that was waited for; or the page that waits."""
    open_store(request).record(name)  # one without records is told as such
    now = open_store(request).version(name)
    asked = version if lent(request).knows(name, version) else now
    file = lent(request).made(name, asked)
    if file is None:
        return render(request, "report_wait.html", name=name, version=asked)
    return FileResponse(file, media_type="text/html", headers={"Content-Security-Policy": policy()})


@ROUTER.get("/searches/{name}/report/parts/state", response_class=HTMLResponse)
def state(request: Request, name: str, version: str) -> HTMLResponse:
    """Return how far it is; the browser goes to it once it is made, also if the search has gone on since."""
    known = lent(request).knows(name, version)
    is_ready = not known or lent(request).made(name, version) is not None
    answer = render(request, "parts/report_wait.html", name=name, version=version)
    if is_ready:
        answer.headers["HX-Redirect"] = address("searches", name, "report.html", version=version)
    return answer


def lent(request: Request) -> Reports:
    """Return the service; raises BadInput if this server has none."""
    reports = services_of(request).reports
    if reports is None:
        raise BadInput("this server writes no reports; the command 'metaloom report' does")
    return reports
