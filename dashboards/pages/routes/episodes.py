"""``/searches/NAME/episodes``: the recorded episodes, filtered, sorted, counted, and as files."""

import shlex

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse

from metaloom.dashboards.episodes.asked import FieldError
from metaloom.dashboards.episodes.class_scores import class_scores
from metaloom.dashboards.episodes.counting import count_on
from metaloom.dashboards.episodes.downloads import FORMATS, download
from metaloom.dashboards.episodes.paging import PagePlace
from metaloom.dashboards.filters import FilterError
from metaloom.dashboards.pages.context import address, render
from metaloom.dashboards.pages.episode_requests import AskedEpisodes, form_values, known_trial
from metaloom.dashboards.pages.replaying import replay_values
from metaloom.dashboards.queries import QueryError, trial_folder
from metaloom.learners.errors import unknown
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking

ROUTER = APIRouter()
PLAYED = 60  # episodes that are played for the confusions


@ROUTER.get("/searches/{name}/episodes", response_class=HTMLResponse)
def episodes(request: Request, name: str) -> HTMLResponse:
    """Show the rows that meet the fields of the form."""
    try:
        asked = AskedEpisodes.of(request, name)
    except (FieldError, FilterError) as problem:
        return _refused(request, name, problem)
    files = {form: asked.here("download", f"{form}") for form in FORMATS}
    charted = {key: one for key, one in asked.question.given if key != "sort"}
    return render(
        request,
        "episodes.html",
        **asked.rows(),
        **asked.form(),
        **asked.totals(),
        files=files,
        charted=charted,
        clear=address("searches", name, "episodes"),
        classes_url=asked.here("parts", "classes"),
        command=_command(asked),
    )


@ROUTER.get("/searches/{name}/episodes/parts/rows", response_class=HTMLResponse)
def more_rows(request: Request, name: str) -> HTMLResponse:
    """Return the rows alone."""
    return render(request, "parts/episode_rows.html", **AskedEpisodes.of(request, name).rows())


@ROUTER.get("/searches/{name}/episodes/parts/totals", response_class=HTMLResponse)
def totals(request: Request, name: str) -> HTMLResponse:
    """Return how many there are, how far the index is, and what is damaged."""
    return render(request, "parts/episode_totals.html", **AskedEpisodes.of(request, name).totals())


@ROUTER.get("/searches/{name}/episodes/parts/count", response_class=HTMLResponse)
def count(request: Request, name: str, so_far: int = 0, at: str = "") -> HTMLResponse:
    """Count for a moment; the fragment goes on by itself until the number is exact."""
    asked = AskedEpisodes.of(request, name)
    found = count_on(asked.index, asked.question, max(so_far, 0), PagePlace.of(at) if at else None)
    on = None if found.going_on is None else asked.here("parts", "count", so_far=found.rows, at=found.going_on)
    return render(request, "parts/episode_count.html", found=found, on=on)


@ROUTER.get("/searches/{name}/episodes/parts/classes", response_class=HTMLResponse)
def classes(request: Request, name: str) -> HTMLResponse:
    """Return the hardest classes and pairs of a trial, by default of the best one, in validation."""
    asked = AskedEpisodes.of(request, name)
    best, question = ranking.best(asked.record), asked.question
    defaults = {"phase": question.phase or records.VALIDATION}
    if question.trial is None and best is not None:
        defaults["trial"] = str(best.number)
    asked = AskedEpisodes.of(request, name, **defaults) if question.phase is None or question.trial is None else asked
    with asked.index.reading():
        found = class_scores(asked.index, asked.question)
    trial, phase = asked.question.trial, asked.question.phase
    confusions = address("searches", name, "episodes", "parts", "confusions", trial=trial, phase=phase)
    return render(
        request, "parts/episode_classes.html", found=found, trial=trial, phase=phase, name=name, url=confusions,
        listing={one: asked.here(classes=", ".join(map(str, one))) for one in _listed(found)},
    )  # fmt: skip


@ROUTER.get("/searches/{name}/episodes/parts/confusions", response_class=HTMLResponse)
def confusions(request: Request, name: str, trial: int, phase: str = records.VALIDATION) -> HTMLResponse:
    """Play some episodes of a trial again, and return which classes it takes for which."""
    asked = AskedEpisodes.of(request, name)
    if phase not in records.PHASES:
        raise QueryError(unknown("phase", phase, records.PHASES))
    folder = trial_folder(asked.index.folder.parents[1], name, known_trial(asked.record, name, trial))
    wanted = {"kind": "confusions", "trial": str(folder), "phase": phase, "episodes": PLAYED}
    here = address("searches", name, "episodes", "parts", "confusions", trial=trial, phase=phase)
    return render(request, "parts/confusions.html", url=here, trial=trial, phase=phase,
                  **replay_values(request, wanted))  # fmt: skip


@ROUTER.get("/searches/{name}/episodes/download/{form}")
def file(request: Request, name: str, form: str) -> StreamingResponse:
    """Return the rows as a file, part by part."""
    asked = AskedEpisodes.of(request, name)
    if form not in FORMATS:
        raise QueryError(unknown("format", form, FORMATS))
    headers = {"Content-Disposition": f'attachment; filename="{name}-episodes.{form}"'}
    content = download(asked.index, asked.question, name, form)
    return StreamingResponse(content, media_type=FORMATS[form], headers=headers)


def _refused(request: Request, name: str, problem: FieldError | FilterError) -> HTMLResponse:
    """Show the form as it was filled in, with what is wrong beside its field."""
    field = problem.field if isinstance(problem, FieldError) else "where"
    text = problem.message if isinstance(problem, FieldError) else str(problem).removeprefix("--where: ")
    form = form_values(request.query_params, {field: text})
    return render(request, "episodes.html", name=name, **form, clear=address("searches", name, "episodes"), status=422)


def _listed(found: object) -> list[tuple[int, ...]]:
    return [one.class_ids for rows in (getattr(found, "classes", ()), getattr(found, "pairs", ())) for one in rows]


def _command(asked: AskedEpisodes) -> str:
    """Return the command that prints the same rows; it has no option for classes."""
    question = asked.question
    parts = ["metaloom episodes", asked.name]
    parts += [] if question.trial is None else [f"--trial {question.trial}"]
    parts += [] if question.phase is None else [f"--phase {question.phase}"]
    where = " and ".join(f"({text})" if len(question.texts) > 1 else text for text in question.texts)
    parts += [f"--where {shlex.quote(where)}"] if where else []
    return " ".join(parts)
