"""What a search tries first: the configurations that are enqueued, and the best trials of an earlier search."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from metaloom.learners.domains import Choice
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.inbox import ORIGIN
from metaloom.orchestrator.reading import Source, read_experiment, read_search
from metaloom.orchestrator.store import Store
from metaloom.search_spaces.errors import ExperimentError, InputProblem, Problems
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import holds
from metaloom.search_spaces.reading.document import parse
from metaloom.search_spaces.resolve import Given, defaults, resolve, searched_knobs
from metaloom.search_spaces.sections.loops import under_searched_names
from metaloom.workers.records import ranking

Start: TypeAlias = dict[str, Any]  # "origin" and "params"
WARM_START, ENQUEUE = ("search", "warm_start"), ("search", "enqueue")


Enqueued: TypeAlias = str | Path | Sequence[Mapping[str, Any]]


def with_enqueued(experiment: Source, changes: list[str], enqueue: Enqueued | None) -> tuple[Experiment, list[str]]:
    """Return the experiment with what is enqueued, and all its changes; a file's problems have their places in it."""
    if enqueue is None:
        return read_experiment(experiment, changes), changes
    file = enqueue if isinstance(enqueue, str | Path) else None
    given, places = read_enqueued(file) if file is not None else (list(enqueue), Problems())  # type: ignore[arg-type]
    changes = [*changes, f"search.enqueue={json.dumps(given)}"]
    try:
        return read_experiment(experiment, changes), changes
    except ExperimentError as error:
        raise (error if file is None else placed_in(file, places, error)) from None


def read_enqueued(file: str | Path) -> tuple[list[Any], Problems]:
    """Read configurations from a YAML file: one mapping, or a list of them; return them with their places.

    Raises:
        ExperimentError: It cannot be read, or holds something else.
    """
    path = Path(file)
    try:
        given, places = parse(path.read_text(encoding="utf-8-sig"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ExperimentError([InputProblem((), f"--enqueue: cannot read it: {reason}", str(path))]) from error
    if places.found:
        raise ExperimentError(places.found, path.name)
    configurations = [given] if isinstance(given, dict) else given
    if not isinstance(configurations, list) or not all(isinstance(one, dict) for one in configurations):
        expected = "expected a list of mappings of searched knobs to values, such as - {learner.update.rate: 0.1}"
        raise ExperimentError([InputProblem((), f"--enqueue: {expected}", path.name)])
    return configurations, Problems(
        {(0, *place) if isinstance(given, dict) else place: at for place, at in places.origins.items()}
    )


def placed_in(file: str | Path, places: Problems, error: ExperimentError) -> ExperimentError:
    """Return an error whose problems of enqueued configurations are told by their places in the file."""
    problems = [
        InputProblem(one.path[2:], one.message, places.origin(one.path[2:])) if one.path[:2] == ENQUEUE else one
        for one in error.problems
    ]
    return ExperimentError(problems, str(file))


def starting_points(experiment: Experiment, store: Store) -> tuple[list[Start], list[str]]:
    """Return the knobs that the first trials try, with their origin, and notes on what cannot be taken.

    Raises:
        SearchError: A configuration cannot be put together, or the earlier search has no finished trial; the message
            names the place in the file.
    """
    enqueued, warm = enqueued_starts(experiment), _warm_starts(experiment, store)
    notes = _left_out(experiment, warm)
    if len(enqueued) > experiment.search.trials:
        notes.append(f"{len(enqueued)} configurations are enqueued, of which {experiment.search.trials} will be tried")
    return enqueued + warm, notes


def enqueued_starts(experiment: Experiment) -> list[Start]:
    """Return what the experiment enqueues; raises ExperimentError, with the place, for what cannot be tried."""
    knobs, starts = searched_knobs(experiment), list[Start]()
    for index, asked in enumerate(experiment.search.enqueue):
        values = under_searched_names(asked, knobs)
        try:
            used = resolve(experiment, Given(values, defaults(experiment))).knobs
        except BadInput as error:
            raise _at(experiment, (*ENQUEUE, index), str(error)) from error
        if unused := [name for name in values if name not in used]:
            chosen = ", ".join(f"{name} is {used[name]}" for name in used if isinstance(knobs[name], Choice))
            raise _at(experiment, (*ENQUEUE, index), f"{', '.join(unused)} has no effect where {chosen}")
        params = {name: str(value) if isinstance(knobs[name], Choice) else value for name, value in values.items()}
        starts.append({"origin": f"{ORIGIN}:{index}", "params": params})
    return starts


def _at(experiment: Experiment, path: tuple[str | int, ...], message: str) -> ExperimentError:
    return ExperimentError([InputProblem(path, message, experiment.origin(path))])


def _warm_starts(experiment: Experiment, store: Store) -> list[Start]:
    """Return the knobs of the earlier search's best trials, with their origin; none without a warm start."""
    wanted = experiment.search.warm_start
    if wanted is None:
        return []
    try:
        ranked = ranking.ranked(read_search(wanted.search, store=store.path))
        if not ranked:
            raise SearchError(f"search '{wanted.search}' has no finished trial to start from; leave warm_start out")
    except SearchError as error:
        place = [experiment.origin(WARM_START), ".".join(WARM_START), str(error)]
        raise SearchError(": ".join(part for part in place if part)) from error
    knobs, origin = searched_knobs(experiment), f"warm_start:{wanted.search}"
    return [
        {"origin": f"{origin}/{trial.number}", "params": under_searched_names(trial.params, knobs)}
        for trial in ranked[: wanted.trials]
    ]


def _left_out(experiment: Experiment, given: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return at most one note, which lists the values of the warm start ``given`` that this search cannot take."""
    knobs = searched_knobs(experiment)
    why: dict[str, str] = {}
    for trial in given:
        for name, value in trial["params"].items():
            if name not in knobs:
                why[name] = "no searched knob here"
            elif not holds(knobs[name], value):
                why[name] = f"{value} is outside its range here"
    values = ", ".join(f"{name} ({reason})" for name, reason in why.items())
    note = f"warm_start leaves out values that this search cannot take, and draws its own instead: {values}"
    return [note] if why else []
