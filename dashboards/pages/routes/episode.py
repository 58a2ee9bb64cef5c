"""``/searches/NAME/episodes/TRIAL/PHASE/STEP/EPISODE``: one episode, drawn again, under one trial or two."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse

from metaloom.dashboards.asked_numbers import whole_number
from metaloom.dashboards.episodes.finding import found_episode
from metaloom.dashboards.episodes.pairing import EpisodePairing, test_pairing, validation_pairing
from metaloom.dashboards.pages.context import address, render, services_of
from metaloom.dashboards.pages.episode_drawing import drawn_episode
from metaloom.dashboards.pages.episode_requests import AskedEpisodes, known_trial
from metaloom.dashboards.pages.replaying import replay_values
from metaloom.learners.errors import BadInput
from metaloom.workers.records.episode import COLUMNS
from metaloom.workers.records.names import trial_directory

ROUTER = APIRouter()
PATH = "/searches/{name}/episodes/{trial}/{phase}/{step}/{episode}"


@ROUTER.get(PATH, response_class=HTMLResponse)
def episode(
    request: Request, name: str, trial: int, phase: str, step: int, episode: int,
    seed: int | None = None, beside: str | None = Query(None, alias="with"),
) -> HTMLResponse:  # fmt: skip
    """Show an episode's record, and what is drawn again of it."""
    asked = AskedEpisodes.of(request, name, trial=str(trial))
    known_trial(asked.record, name, trial)
    row, part = found_episode(asked.index, name, trial, phase, step=step, episode=episode, seed=seed)
    other = _other(asked, beside)
    pairs, untested = ([], "") if other is None else _pairs(request, asked, trial, other)
    place = ("searches", name, "episodes", trial, phase, step, episode)
    return render(
        request,
        "episode.html",
        name=name,
        trial_number=trial,
        row=row,
        part=part.path.name,
        docs={column.name: column.doc for column in COLUMNS},
        steps=_steps(row),
        other=other,
        trials=[one for one in sorted(asked.record.trials) if one != trial],
        here=address(*place),
        seed=seed,
        previous=address(*place[:-1], episode - 1) if episode and seed is None else None,
        following=address(*place[:-1], episode + 1) if seed is None else None,
        replay_url=address(*place, "parts", "replay", seed=seed, **{"with": other}),
        pairs=pairs,
        untested=untested,
        listing=address("searches", name, "episodes", trial=trial, phase=phase),
    )


@ROUTER.get(f"{PATH}/parts/replay", response_class=HTMLResponse)
def replay(
    request: Request, name: str, trial: int, phase: str, step: int, episode: int,
    seed: int | None = None, beside: str | None = Query(None, alias="with"),
) -> HTMLResponse:  # fmt: skip
    """Return the episode's examples and predictions, or how far the process is that makes them."""
    asked = AskedEpisodes.of(request, name, trial=str(trial))
    known_trial(asked.record, name, trial)
    row, part = found_episode(asked.index, name, trial, phase, step=step, episode=episode, seed=seed)
    other = _other(asked, beside)
    numbers = [trial] if other is None else [trial, other]
    record = {one: row[one] for one in ("phase", "episode", "seed", "class_ids", "sample_ids")}
    trials = {str(one): str(_directory(asked, one)) for one in numbers}
    wanted = {"kind": "episode", "record": {**record, "part": part.path.name}, "trials": trials}
    values = replay_values(request, wanted)
    found = values["replay"]
    drawn = drawn_episode(found.result, row) if found.state == "done" else None
    url = str(request.url.path) + (f"?{request.url.query}" if request.url.query else "")
    return render(request, "parts/replay.html", url=url, row=row, drawn=drawn, name=name, **values)


def _other(asked: AskedEpisodes, beside: str | None) -> int | None:
    """Return the number of the trial beside; raises BadInput for no number, QueryError for no trial."""
    if not beside:
        return None
    return known_trial(asked.record, asked.name, whole_number("with", beside, "the number of a trial"))


def _directory(asked: AskedEpisodes, trial: int) -> Path:
    return trial_directory(asked.index.folder, trial).absolute()


def _pairs(request: Request, asked: AskedEpisodes, trial: int, other: int) -> tuple[list[EpisodePairing], str]:
    """Return the differences of two trials, and why there is none of their tests."""
    trials, comparisons, problem = asked.record.trials, services_of(request).comparisons, ""
    found = [validation_pairing(trials[trial], trials[other])]
    if comparisons is not None:
        try:
            found.append(test_pairing(comparisons.recorded([f"{asked.name}:{other}", f"{asked.name}:{trial}"])))
        except BadInput as refusal:
            problem = str(refusal)
    return [one for one in found if one is not None], problem


def _steps(row: dict[str, Any]) -> list[tuple[int, Any, Any]]:
    """Return the loss and the accuracy before adaptation and after each inner step."""
    losses, accuracies = row["losses"] or [], row["accuracies"] or []
    return [(at, loss, accuracies[at] if at < len(accuracies) else None) for at, loss in enumerate(losses)]
