"""``/searches/NAME/trials/NUMBER/knowledge``: what a trial has learned, at each step that is kept, beside another one.

The page itself opens at once; what was learned comes as a part of it, from a process apart, which imports torch.
"""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from metaloom.dashboards.asked_numbers import whole_number
from metaloom.dashboards.knowledge_charts.selection import TrialPlace, asked_step, other_of, place_of
from metaloom.dashboards.pages.apart_routes import answered_apart, begin_apart
from metaloom.dashboards.pages.context import open_store, render
from metaloom.learners.errors import BadInput
from metaloom.workers.errors import CheckpointError

ROUTER = APIRouter()
PAGE = "/searches/{name}/trials/{number}/knowledge"
MOST_OFFERED = 200  # trials in the list beside the field; any other may be typed


@ROUTER.get(PAGE, response_class=HTMLResponse)
def knowledge(request: Request, name: str, number: int) -> HTMLResponse:
    """Show the frame of the page: the slider over the steps, and the choice of another trial."""
    begin_apart(request)
    store, asked = open_store(request), dict(request.query_params)
    place, other, problem = place_of(store, name, number), None, ""
    try:
        other = other_of(store, name, asked.get("with", ""))
    except BadInput as refusal:
        problem = str(refusal).removeprefix("with: ")
    begun = [trial.number for trial in store.record(name).trials.values() if trial.step and trial.number != number]
    steps, at = place.kept, place.near(asked_step(asked))
    return render(
        request,
        "knowledge.html",
        **_shared(name, number, place, other, asked),
        steps=steps,
        chosen=len(steps) if at is None else steps.index(at),
        texts=[*(f"step {step}" for step in steps), _last(place)],
        offered=sorted(begun)[:MOST_OFFERED],
        problem=problem,
        status=422 if problem else 200,
    )


@ROUTER.get(f"{PAGE}/parts/state", response_class=HTMLResponse)
@answered_apart
def state(request: Request, name: str, number: int) -> HTMLResponse:
    """Show what was learned at a step: ``step``, or the place ``at`` of the slider."""
    from metaloom.dashboards.knowledge_charts.kinds import sections_of
    from metaloom.dashboards.knowledge_charts.pairs import pair_of

    store, asked = open_store(request), dict(request.query_params)
    place = place_of(store, name, number)
    if (at := asked.get("at", "")) != "":
        asked["step"] = _step_at(place, at)
    if not place.begun:
        return render(request, "parts/knowledge_none.html", place=place, name=name, damage="")
    try:
        pair = pair_of(store, name, number, asked)
    except CheckpointError as problem:
        return render(request, "parts/knowledge_none.html", place=place, name=name, damage=str(problem))
    values = _shared(name, number, place, pair.other, asked)
    return render(request, "parts/knowledge.html", **values, pair=pair, sections=sections_of(pair), step=pair.step)


@ROUTER.get(f"{PAGE}/parts/steps", response_class=HTMLResponse)
@answered_apart
def steps(request: Request, name: str, number: int) -> HTMLResponse:
    """Show the chart of a kind over the outer steps: it is asked for when its part of the page is opened."""
    from metaloom.dashboards.knowledge_charts.pairs import pair_of

    kind = request.query_params.get("kind", "")
    title = pair_of(open_store(request), name, number, {}).title(kind)
    return render(request, "parts/knowledge_steps.html", name=name, trial_number=number, kind=kind, title=title)


@ROUTER.get(f"{PAGE}/{{kind}}.png")
@answered_apart
def picture(request: Request, name: str, number: int, kind: str) -> Response:
    """Return the pictures of a kind of facts; the address names a registered kind and never a file."""
    from metaloom.dashboards.knowledge_charts.images import png_of

    store, asked = open_store(request), request.query_params
    place = place_of(store, name, number)
    panel = whole_number("panel", asked.get("panel", "0"))
    return Response(png_of(place, kind, place.near(asked_step(asked)), panel), media_type="image/png")


def _shared(
    name: str, number: int, place: TrialPlace, other: TrialPlace | None, asked: dict[str, str]
) -> dict[str, Any]:
    beside = asked.get("with", "").strip()
    return {"name": name, "trial_number": number, "place": place, "other": other, "beside": beside}


def _step_at(place: TrialPlace, at: str) -> str:
    """Return the step at a place of the slider, empty for its end, which is the last state."""
    number = whole_number("at", at, "a place of the slider")
    return str(place.kept[number]) if number < len(place.kept) else ""


def _last(place: TrialPlace) -> str:
    return f"the last state (of {place.steps} steps)" if not place.running else f"the newest state (step {place.steps})"
