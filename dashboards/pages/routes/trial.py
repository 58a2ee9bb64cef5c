"""``/searches/NAME/trials/NUMBER``: one trial, live while it runs."""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse

from metaloom.dashboards.checkpoint_rows import checkpoint_rows, learned_names
from metaloom.dashboards.episode_scan import QueryError
from metaloom.dashboards.pages.apart_routes import answered_apart
from metaloom.dashboards.pages.context import address, open_store, render
from metaloom.dashboards.queries import search_folder, trial_folder
from metaloom.dashboards.setting_rows import FIXED, SettingRow, setting_rows
from metaloom.dashboards.stage_rows import stage_rows
from metaloom.dashboards.trial_curves import diagnostics
from metaloom.dashboards.trial_facts import advice, facts, health, how_it_stands, neighbours
from metaloom.dashboards.trial_history import history, output_end_after, output_page
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord, TrialRecord

ROUTER = APIRouter()
PLACE = "/searches/{name}/trials/{number}"
MOST_EVENTS = 200  # of the history, the newest: a long trial has a thousand reports


@ROUTER.get(PLACE, response_class=HTMLResponse)
def trial(request: Request, name: str, number: int, output: int | None = None) -> HTMLResponse:
    """Show a trial; ``output`` is where the shown piece of its output ends."""
    record, one = found(request, name, number)
    before, after = neighbours(record, number)
    values = {
        **_head(request, name, record, one),
        **_rest(request, name, record, one),
        **_output(request, name, number, output),
        "trial_number": number,
        "before": before,
        "after": after,
        "absent": absent_charts(one),
        "settings": by_section(setting_rows(one, learned_names(_directory(request, name, number)))),
    }
    return render(request, "trial.html", **values)


@ROUTER.get(f"{PLACE}/parts/head", response_class=HTMLResponse)
def head(request: Request, name: str, number: int) -> HTMLResponse:
    """Return what is known of it now."""
    return render(request, "parts/trial_head.html", **_head(request, name, *found(request, name, number)))


@ROUTER.get(f"{PLACE}/parts/rest", response_class=HTMLResponse)
def rest(request: Request, name: str, number: int) -> HTMLResponse:
    """Return the health of its hypergradient, its checkpoints and its history."""
    return render(request, "parts/trial_rest.html", **_rest(request, name, *found(request, name, number)))


@ROUTER.get(f"{PLACE}/parts/output", response_class=HTMLResponse)
def output(request: Request, name: str, number: int, output: int | None = None) -> HTMLResponse:
    """Return a piece of what its code has printed."""
    found(request, name, number)
    return render(request, "parts/trial_output.html", name=name, **_output(request, name, number, output))


@ROUTER.get(f"{PLACE}/parts/file", response_class=HTMLResponse)
@answered_apart
def file(request: Request, name: str, number: int) -> HTMLResponse:
    """Return its experiment file, to be copied."""
    from metaloom.dashboards.trial_file import trial_yaml

    record, one = found(request, name, number)
    try:
        text, problem = trial_yaml(record, name, number), ""
    except QueryError as error:
        text, problem = "", str(error)
    return render(request, "parts/trial_file.html", name=name, number=one.number, text=text, problem=problem)


@ROUTER.get(f"{PLACE}/experiment.yaml")
@answered_apart
def download(request: Request, name: str, number: int) -> PlainTextResponse:
    """Return its experiment file, for ``train`` and ``search``."""
    from metaloom.dashboards.trial_file import trial_yaml

    record, _ = found(request, name, number)
    named = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(f'{name}-{number}.yaml')}"}
    return PlainTextResponse(trial_yaml(record, name, number), headers=named, media_type="application/yaml")


def found(request: Request, name: str, number: int) -> tuple[SearchRecord, TrialRecord]:
    """Return a search and its trial; raises QueryError if there is none."""
    record = open_store(request).record(name)
    if number not in record.trials:
        spans = f"{min(record.trials)} to {max(record.trials)}" if record.trials else "none yet"
        raise QueryError(f"search '{name}' has no trial {number}; it has {spans}")
    return record, record.trials[number]


def absent_charts(trial: TrialRecord) -> dict[str, str]:
    """Return the charts that a trial can never have, and why."""
    if trial.last is None:
        return {}
    absent = {}
    if not diagnostics(trial.reports):
        absent["trial-diagnostics"] = f"The estimator {trial.last.hypergradient or 'in use'} has no numbers of its own."
    if records.PEAK_BYTES not in trial.last.metrics:
        absent["trial-memory"] = "Memory was not recorded: an earlier version has run it."
    return absent


def by_section(rows: tuple[SettingRow, ...]) -> list[tuple[str, list[SettingRow], int]]:
    """Return the settings of each section, and how many of them are not fixed."""
    sections: dict[str, list[SettingRow]] = {}
    for row in rows:
        sections.setdefault(row.section, []).append(row)
    return [(name, of, sum(row.mark != FIXED for row in of)) for name, of in sections.items()]


def _directory(request: Request, name: str, number: int) -> Any:
    return trial_folder(open_store(request).path, name, number)


def _head(request: Request, name: str, record: SearchRecord, one: TrialRecord) -> dict[str, Any]:
    store = open_store(request).path
    best = ranking.best(record)
    return {
        "name": name,
        "trial": one,
        "search_state": record.state,
        "is_best": best is not None and best.number == one.number,
        "stands": how_it_stands(one),
        "facts": facts(record, one, history(search_folder(store, name), one.number)),
        "advice": advice(record, one, name, store),
    }


def _rest(request: Request, name: str, record: SearchRecord, one: TrialRecord) -> dict[str, Any]:
    store = open_store(request).path
    stages = [row for row in stage_rows(record) or () if one.number in row.trials]
    events = history(search_folder(store, name), one.number)
    return {
        "name": name,
        "number": one.number,
        "health": health(one, name, store),
        "checkpoints": checkpoint_rows(_directory(request, name, one.number)),
        "stages": stages,
        "events": events[-MOST_EVENTS:],
        "left_out": max(0, len(events) - MOST_EVENTS),
    }


def _output(request: Request, name: str, number: int, end: int | None) -> dict[str, Any]:
    """Return a piece of the output with the addresses of the pieces before and after it."""
    page = output_page(_directory(request, name, number), end)
    place = address("searches", name, "trials", number)
    before = after = None
    if page is not None and page.start > 0:
        before = f"{place}?output={page.start}#output"
    if page is not None and page.end < page.size:
        after = f"{place}?output={output_end_after(page)}#output"
    return {"number": number, "output": page, "earlier": before, "later": after, "at_end": end is None}
