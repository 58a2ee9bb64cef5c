"""``/searches/NAME/charts/KEY.json``: the data of a chart."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from metaloom.dashboards.asked_numbers import whole_number
from metaloom.dashboards.charts import registry
from metaloom.dashboards.charts.base import ChartSource, to_document
from metaloom.dashboards.pages.apart_routes import answer_apart
from metaloom.dashboards.pages.context import open_store, services_of

ROUTER = APIRouter()


@ROUTER.get("/searches/{name}/charts/{key}.json")
def chart_data(request: Request, name: str, key: str) -> Response:
    """Return a chart as JSON; an ``empty`` one says what it would be drawn of."""
    kind = registry.chart_kind(key)
    if kind.apart and (answer := answer_apart(request)) is not None:
        return answer
    asked = dict(request.query_params)
    source = ChartSource(
        open_store(request), name, trial_number(asked.pop("trial", None)), asked, services_of(request).analysis
    )
    source.store.version(name)  # an unknown search is told as such
    chart = kind.draw(source)
    if chart is None:
        return JSONResponse({"title": kind.title, "empty": kind.needs})
    return JSONResponse(to_document(chart))


def trial_number(given: str | None) -> int | None:
    """Return the number in a query string; raises BadInput for what is none."""
    return None if given is None else whole_number("trial", given, "the number of a trial")
