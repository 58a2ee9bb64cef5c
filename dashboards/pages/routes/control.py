"""``/searches/NAME/control``: what the command line can do to a search, each confirmed; nothing in read-only mode."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from metaloom.dashboards.pages.context import Fields, address, open_store, render, services_of, settings_of
from metaloom.dashboards.pages.routes.chart_data import trial_number
from metaloom.dashboards.pages.routes.trial import found
from metaloom.dashboards.pages.services import Control, FieldProblem, Refused
from metaloom.learners.errors import BadInput, MetaloomError, shown
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord, TrialRecord

ROUTER = APIRouter()
KNOB = "knob:"  # before the name of a knob, among the fields of a form
DONE = {  # what a page says after a change, by the key in its address
    "stop": "The search was told to stop: it completes its records first.",
    "job": "A job was begun: its output is below.",
    "enqueue": "The configuration was enqueued: it is tried next.",
    "rename": "The search was renamed.",
    "note": "The note was added.",
}


@ROUTER.get("/searches/{name}/control", response_class=HTMLResponse)
def control(request: Request, name: str, trial: str | None = None, done: str = "") -> HTMLResponse:
    """Show the control room of a search; its forms begin with ``trial`` if one is named."""
    chosen = _chosen(request, name, trial)
    given = {} if chosen is None else {"trial": str(chosen.number), "note_trial": str(chosen.number)}
    return _page(request, name, given, told=DONE.get(done, ""), trial=chosen)


@ROUTER.get("/searches/{name}/control/parts/state", response_class=HTMLResponse)
def state(request: Request, name: str) -> HTMLResponse:
    """Return the state of the search, and what can be done with its process."""
    return render(request, "parts/control_state.html", **_values(request, name))


@ROUTER.get("/searches/{name}/control/parts/jobs", response_class=HTMLResponse)
def jobs(request: Request, name: str) -> HTMLResponse:
    """Return the jobs, with what they have printed."""
    return render(request, "parts/control_jobs.html", **_values(request, name))


@ROUTER.get("/searches/{name}/control/parts/knobs", response_class=HTMLResponse)
def knobs(request: Request, name: str, trial: str | None = None) -> HTMLResponse:
    """Return a field for each searched knob, which holds the value of the best trial, or of the one that is named."""
    chosen, fields = _chosen(request, name, trial), lent(request).knobs(name)
    given = {} if chosen is None else {knob.name: chosen.knobs.get(knob.name, "") for knob in fields}
    return render(request, "parts/control_knobs.html", knobs=fields, given=given, problems={})


@ROUTER.post("/searches/{name}/control/stop")
def stop(request: Request, name: str) -> Response:
    """Stop the search."""
    return _changed(request, name, {}, "stop", lambda: lent(request).stop(name))


@ROUTER.post("/searches/{name}/control/resume")
def resume(request: Request, name: str) -> Response:
    """Go on with the search."""
    return _changed(request, name, {}, "job", lambda: lent(request).resume(name))


@ROUTER.post("/searches/{name}/control/extend")
def extend(request: Request, name: str, fields: Fields) -> Response:
    """Go on with more trials, or more time."""

    def change() -> None:
        trials = _number(fields, "trials", int, "a whole number above 0")
        seconds = _number(fields, "time_budget_s", float, "seconds, a number above 0")
        lent(request).extend(name, trials=trials, time_budget_s=seconds)

    return _changed(request, name, fields, "job", change)


@ROUTER.post("/searches/{name}/control/enqueue")
def enqueue(request: Request, name: str, fields: Fields) -> Response:
    """Let the search try a configuration next."""
    values = {key.removeprefix(KNOB): value for key, value in fields.items() if key.startswith(KNOB)}
    return _changed(request, name, fields, "enqueue", lambda: lent(request).enqueue(name, values), values)


@ROUTER.post("/searches/{name}/control/export")
def export(request: Request, name: str, fields: Fields) -> Response:
    """Write the bundle of a trial, and play its test again."""

    def change() -> None:
        trial = _number(fields, "trial", int, "the number of a trial", least=0)
        if trial is not None and trial not in open_store(request).record(name).trials:
            raise _wrong("trial", f"there is no trial {trial}")
        verifies = fields.get("verifies") == "on"
        lent(request).export(name, trial=trial, bundle=fields.get("bundle") or None, verifies=verifies)

    return _changed(request, name, fields, "job", change)


@ROUTER.post("/searches/{name}/control/verify")
def verify(request: Request, name: str, fields: Fields) -> Response:
    """Play the test of a bundle again."""
    return _changed(request, name, fields, "job", lambda: lent(request).verify(name, fields.get("bundle", "")))


@ROUTER.post("/searches/{name}/control/note")
def note(request: Request, name: str, fields: Fields) -> Response:
    """Add a remark to the search, or to a trial."""

    def change() -> None:
        trial = _number(fields, "note_trial", int, "the number of a trial", least=0)
        lent(request).note(name, fields.get("text", ""), trial=trial)

    return _changed(request, name, fields, "note", change)


@ROUTER.post("/searches/{name}/control/rename")
def rename(request: Request, name: str, fields: Fields) -> Response:
    """Give the search another name."""
    new = fields.get("new", "").strip()
    answer = _changed(request, name, fields, "rename", lambda: lent(request).rename(name, new))
    return _to(new, "rename") if isinstance(answer, RedirectResponse) else answer


@ROUTER.post("/searches/{name}/control/delete")
def delete(request: Request, name: str, fields: Fields) -> Response:
    """Delete the search, if its name was typed."""

    def change() -> None:
        if fields.get("typed") != name:
            raise Refused(f"type the name of the search, {name}, to delete it")
        lent(request).delete(name)

    answer = _changed(request, name, fields, "", change)
    return RedirectResponse("/", status_code=303) if isinstance(answer, RedirectResponse) else answer


def lent(request: Request) -> Control:
    """Return the service; raises BadInput if this server has none."""
    control = services_of(request).control
    if control is None:
        raise BadInput("this server changes no searches")
    return control


def _changed(
    request: Request,
    name: str,
    fields: Mapping[str, str],
    done: str,
    change: Callable[[], object],
    knobs: Mapping[str, str] | None = None,
) -> Response:
    """Make a change and lead to the page that tells of it; or show the page again, with what was wrong."""
    open_store(request).version(name)  # an unknown search is told as such
    try:
        change()
    except MetaloomError as error:
        told = error.problems if isinstance(error, Refused) else ()
        problems = {one.place: one.message for one in told}
        return _page(request, name, fields, wrong=str(error), problems=problems, knobs=knobs, status=422)
    return _to(name, done)


def _to(name: str, done: str) -> RedirectResponse:
    return RedirectResponse(address("searches", name, "control", done=done), status_code=303)


def _page(
    request: Request,
    name: str,
    given: Mapping[str, str],
    *,
    told: str = "",
    wrong: str = "",
    problems: Mapping[str, str] | None = None,
    knobs: Mapping[str, str] | None = None,
    trial: TrialRecord | None = None,
    status: int = 200,
) -> HTMLResponse:
    """Return the page; ``knobs`` are the values of a configuration that was refused."""
    fields = None if knobs is None else lent(request).knobs(name)
    return render(
        request,
        "control.html",
        **_values(request, name),
        form=given,
        told=told,
        wrong=wrong,
        problems=problems or {},
        knobs=fields,
        given=knobs or {},
        trial=None if trial is None else trial.number,
        status=status,
    )


def _values(request: Request, name: str) -> dict[str, Any]:
    record, lends = open_store(request).record(name), services_of(request).control
    changes = lends is not None and not settings_of(request).read_only
    return {
        "name": name,
        "record": record,
        "changes": changes,
        "jobs": () if lends is None else lends.jobs(name),
        "bundles": () if lends is None else lends.bundles(name),
        "stopping": lends is not None and _is_stopping(lends, name, record),
        "ended": record.state in (records.FINISHED, records.FAILED),
    }


def _chosen(request: Request, name: str, given: str | None) -> TrialRecord | None:
    """Return the trial that an address names; raises QueryError if the search has none of this number."""
    number = trial_number(given)
    return None if number is None else found(request, name, number)[1]


def _is_stopping(lends: Control, name: str, record: SearchRecord) -> bool:
    return record.state == records.RUNNING and lends.is_stopping(name, record.session)


def _number(fields: Mapping[str, str], key: str, kind: type[Any], allowed: str, *, least: float = 1e-9) -> Any:
    """Return the number in a field, None of an empty one; raises Refused, with the field, for what is none."""
    text = fields.get(key, "").strip()
    try:
        number = kind(text) if text else None
    except ValueError:
        number = -1
    if number is not None and not least <= number < float("inf"):
        raise _wrong(key, f"got {shown(text)}; give {allowed}")
    return number


def _wrong(key: str, wrong: str) -> Refused:
    return Refused(f"{key}: {wrong}", (FieldProblem(key, wrong),))
