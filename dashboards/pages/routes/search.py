"""``/searches/NAME``: one search, live, with the table of its trials and its downloads."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from metaloom.dashboards import text
from metaloom.dashboards.pages.context import address, open_store, render
from metaloom.dashboards.pages.trial_query import TrialPage, cell_text, is_number, page_of, query_of
from metaloom.dashboards.queries import QueryError
from metaloom.dashboards.search_view import SearchView, view_of
from metaloom.dashboards.trial_table import csv_of, parquet_of
from metaloom.learners.errors import unknown
from metaloom.workers.records import names as records

ROUTER = APIRouter()
FILES = {"csv": (csv_of, "text/csv; charset=utf-8"), "parquet": (parquet_of, "application/vnd.apache.parquet")}
PARTS = (
    ("Stages", text.stage_cells),
    ("Methods, each by its best trial", text.method_cells),
    ("Data sets, of the best trial", text.source_cells),
    ("Trials of the same knobs", text.configuration_cells),
)


@ROUTER.get("/searches/{name}", response_class=HTMLResponse)
def search(request: Request, name: str) -> HTMLResponse:
    """Show a search."""
    view = view_of(open_store(request), name)
    return render(request, "search.html", **_shared(view), **_table(view, request))


@ROUTER.get("/searches/{name}/parts/header", response_class=HTMLResponse)
def header(request: Request, name: str) -> HTMLResponse:
    """Return the state, the progress, the best trial and the tests."""
    return render(request, "parts/search_header.html", **_shared(view_of(open_store(request), name)))


@ROUTER.get("/searches/{name}/parts/tables", response_class=HTMLResponse)
def tables(request: Request, name: str) -> HTMLResponse:
    """Return the stages, methods and data sets."""
    return render(request, "parts/search_tables.html", **_shared(view_of(open_store(request), name)))


@ROUTER.get("/searches/{name}/parts/trials", response_class=HTMLResponse)
def trials(request: Request, name: str) -> HTMLResponse:
    """Return the rows that are asked for; the browser's address follows what the user has chosen."""
    values = _table(view_of(open_store(request), name), request)
    known = request.query_params.get("known", "")
    outdated = known != str(len(values["all_columns"]))
    answer = render(request, "parts/trials.html", name=name, with_columns=outdated, **values)
    shown: TrialPage = values["page"]
    if "chosen" in request.query_params and not shown.problem:
        query = shown.query.text
        answer.headers["HX-Replace-Url"] = address("searches", name) + (f"?{query}" if query else "")
    return answer


@ROUTER.get("/searches/{name}/trials.{form}")
def trial_file(request: Request, name: str, form: str) -> Response:
    """Return the trials that are asked for, all their columns, as a CSV or Parquet file."""
    view = view_of(open_store(request), name)
    if form not in FILES:
        raise QueryError(unknown("form of file", form, tuple(FILES)))
    write, kind = FILES[form]
    kept = view.table.filtered(query_of(request.query_params).asked)
    named = {"Content-Disposition": f'attachment; filename="{name}-trials.{form}"'}
    return Response(write(kept, view.table.columns), headers=named, media_type=kind)


def _shared(view: SearchView) -> Mapping[str, Any]:
    summary = view.summary
    return {
        "name": view.name,
        "view": view,
        "row": view.row,
        "summary": summary,
        "aims": view.row.objectives,
        "test": text.test_cells(summary),
        "endings": text.ending_lines(summary),
        "without_best": text.without_best(summary),
        "parts": [(title, *cells(summary)) for title, cells in PARTS],
    }


def _table(view: SearchView, request: Request) -> Mapping[str, Any]:
    page = page_of(view.table, request.query_params)
    return {
        "page": page,
        "best": None if view.row.best is None else view.row.best.id,
        "all_columns": view.table.columns,
        "numeric": {column.key for column in page.columns if is_number(column, page.rows)},
        "cell": cell_text,
        "states": records.TRIAL_STATES,
        "metric": view.row.objectives[0].metric if view.row.objectives else "value",
        "infeasible": view.row.infeasible or {},
    }
