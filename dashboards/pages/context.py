"""Rendering: templates with what every page needs, and what a route needs from its request."""

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Depends
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from metaloom.dashboards import text
from metaloom.dashboards.charts import registry
from metaloom.dashboards.pages.services import Services
from metaloom.dashboards.pages.settings import PageSettings
from metaloom.dashboards.pages.static_files import PLOTLY, static_address
from metaloom.dashboards.queries import QueryError
from metaloom.dashboards.store_reader import OpenStore
from metaloom.learners.errors import BadInput
from metaloom.workers.records import names as records

TEMPLATES = Path(__file__).resolve().parent / "templates"
CHART_PLACE = '<figure class="chart"'  # in parts/chart.html
MOST_FIELDS = 1000  # of a form
SPANS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


def render(request: Request, template: str, **values: Any) -> HTMLResponse:
    """Return a rendered template; ``status`` may be among the values."""
    settings = settings_of(request)
    shared: dict[str, Any] = {"read_only": settings.read_only, "store": str(settings.store)}
    shared |= {"path": request.url.path, "shown_version": _version_before(request)}
    return rendered(template, **shared, **values)


def rendered(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a rendered template without a request: for answers to requests that are refused."""
    shared = {"path": "", "read_only": True, "store": "", "shown_version": "", "now": time.time()}
    page = environment().get_template(template).render(**{**shared, **values})
    # The drawing program is asked for at once, not when the scripts have found a chart.
    early = {"Link": f"<{static_address(PLOTLY)}>; rel=preload; as=script"} if CHART_PLACE in page else None
    return HTMLResponse(page, status_code=status, headers=early)


def open_store(request: Request) -> OpenStore:
    """Return the store of the application."""
    _version_before(request)
    found: OpenStore = request.app.state.store
    return found


def version_of(store: OpenStore, name: str | None) -> str:
    """Return the version of a search, or of all searches; raises QueryError for an unknown one."""
    if name is not None:
        return store.version(name)
    versions = {one: store.version(one) for one in records.search_names(store.path)}
    return " ".join(f"{one}:{version}" for one, version in sorted(versions.items()))


def _version_before(request: Request) -> str:
    """Return the version before anything was read for this request: the browser asks for all that came later."""
    if not hasattr(request.state, "version"):
        try:
            request.state.version = version_of(request.app.state.store, request.path_params.get("name"))
        except QueryError:  # the route says what is wrong
            request.state.version = ""
    found: str = request.state.version
    return found


def settings_of(request: Request) -> PageSettings:
    """Return how the application is served."""
    found: PageSettings = request.app.state.settings
    return found


def services_of(request: Request) -> Services:
    """Return what the orchestrator lends."""
    found: Services = request.app.state.services
    return found


async def form(request: Request) -> dict[str, str]:
    """Return the fields of a urlencoded form; a field that is given twice has its last value. Raises BadInput."""
    body = await request.body()
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as problem:  # also of bytes that are no text
        raise BadInput(f"a form is text in UTF-8, of at most {MOST_FIELDS} fields") from problem


Fields = Annotated[dict[str, str], Depends(form)]  # a parameter of a route that takes a form


@cache
def environment() -> Environment:
    """Return the environment of the templates: everything is escaped, and an unknown name is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(static=static_address, chart=chart, charts_of=registry.charts_of, address=address)
    made.filters.update(
        ago=ago, span=span, clock=clock, number=text.number, scored=scored, plural=plural, size=text.size
    )
    return made


def address(*parts: Any, **query: Any) -> str:
    """Return the address of the path with these parts; a value of the query that is None is left out."""
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    return f"{path}?{asked}" if asked else path


@pass_context
def chart(context: Context, key: str, **asked: Any) -> Markup:
    """Return the place of a chart, which the browser fills; the search and the trial are those of the page."""
    kind = registry.chart_kind(key)
    query = {"trial": context.get("trial_number"), **asked}
    url = address("searches", context["name"], "charts", f"{key}.json", **query)
    return Markup(environment().get_template("parts/chart.html").render(kind=kind, url=url))


def ago(then: float | None, now: float | None = None) -> str:
    """Say how long ago a time was, in its greatest unit."""
    if then is None:
        return "never"
    seconds = max(0.0, (time.time() if now is None else now) - then)
    for length, unit in SPANS:
        if seconds >= length:
            return f"{plural(int(seconds // length), unit)} ago"
    return "now"


def span(seconds: float | None) -> str:
    """Write a length of time in its two greatest units."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def clock(then: float | None) -> str:
    """Write a time as date and time of this machine's zone."""
    return "-" if then is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then))


def scored(evaluation: Mapping[str, Any] | None) -> str:
    """Write the mean of an evaluation with its interval."""
    return "-" if evaluation is None else text.scored(evaluation["mean"], evaluation["interval"])


def plural(count: int, noun: str) -> str:
    """Write a count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
