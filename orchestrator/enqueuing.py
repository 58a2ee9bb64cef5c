"""``metaloom enqueue``: a configuration that a search, running or not, tries next.

The search's one writer journals it. Where no process runs the search that is this one; else the request waits as a file
(inbox.py) until the search's own process is about to propose a trial, or until a resume.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.learners.domains import Choice
from metaloom.learners.errors import unknown
from metaloom.orchestrator import inbox
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.journal import Journal, writer_lock
from metaloom.orchestrator.planning import domain_text
from metaloom.orchestrator.repair import recover
from metaloom.orchestrator.starting_points import enqueued_starts
from metaloom.orchestrator.store import DEFAULT_STORE, Store, command
from metaloom.search_spaces.consistency import wrong_value
from metaloom.search_spaces.errors import ExperimentError, InputProblem
from metaloom.search_spaces.experiment import FIRST_FINGERPRINT_VERSION, Experiment
from metaloom.search_spaces.knobs.sampling import Domain, resolve_node
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import searched_knobs
from metaloom.search_spaces.sections.loops import under_searched_names
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord


@dataclass(frozen=True)
class Enqueueing:
    """A configuration that was enqueued.

    Attributes:
        params: The values of its knobs; the sampler draws the others.
        journalled: Whether it is in the journal; otherwise the process that runs the search takes it up.
        note: When it will be tried.
    """

    params: Mapping[str, Any]
    journalled: bool
    note: str


@dataclass(frozen=True)
class SettableKnob:
    """A knob that a configuration may set.

    Attributes:
        kind: ``number``, ``whole number`` or ``choice``.
        range: Its values in words.
        options: Of a choice.
        low: The least number; None of a choice.
        high: The greatest number; None of a choice.
        value: That of the best trial, None where it has none; before there is a best trial the default.
    """

    name: str
    kind: str
    range: str
    options: tuple[str, ...]
    low: float | None
    high: float | None
    value: Any


def enqueue(name: str, values: Mapping[str, Any], *, store: str | Path = DEFAULT_STORE) -> Enqueueing:
    """Enqueue a configuration: the search tries it next, before what the sampler suggests.

    Args:
        name: The search; it may be running.
        values: Of searched knobs, by their names; the sampler draws those that are left out.
        store: Folder of all records.

    Raises:
        SearchError: There is no such search.
        ExperimentError: A knob or a value is none of this search's; the place of each problem is the knob.
    """
    folder = Store(store).existing_folder(name)
    params = _checked(folder, values)
    request = inbox.put(folder, params)
    with suppress(SearchError), writer_lock(folder):  # else a process runs it, and takes the request up
        recover(folder)
        with Journal(folder) as journal:
            state = SearchRecord.replay(journal.events())
            inbox.take_up(folder, state, lambda one: state.apply(journal.append_between(records.ENQUEUED, one)))
    state = SearchRecord.read(folder)
    journalled = any(one["request"] == request for one in state.enqueued)
    return Enqueueing(params, journalled, _when(folder, state, journalled))


def settable_knobs(name: str, *, store: str | Path = DEFAULT_STORE) -> list[SettableKnob]:
    """Return the knobs that a configuration of a search may set; raises SearchError if there is no such search."""
    folder = Store(store).existing_folder(name)
    experiment, values = _experiment(folder), dict[str, Any]()
    best = ranking.best(SearchRecord.read(folder))
    for root in experiment.space.roots() if best is None else ():
        resolve_node(root, None, values)
    values |= {} if best is None else best.knobs
    return [_settable(knob, domain, values.get(knob)) for knob, domain in searched_knobs(experiment).items()]


def _settable(name: str, domain: Domain, value: Any) -> SettableKnob:
    if isinstance(domain, Choice):
        return SettableKnob(name, "choice", domain_text(domain), tuple(domain.options), None, None, value)
    kind = "whole number" if isinstance(domain.low, int) else "number"
    return SettableKnob(name, kind, domain_text(domain), (), float(domain.low), float(domain.high), value)


def _experiment(folder: Path, changes: Sequence[str] = ()) -> Experiment:
    created = SearchRecord.read(folder).created
    if not created:
        raise SearchError(f"search '{folder.name}' was killed before its first record; remove it and search again")
    version = created.get("fingerprint_version", FIRST_FINGERPRINT_VERSION)
    return load_experiment(created["experiment"], changes, fingerprint_version=version)


def _checked(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as the journal has them; raises ExperimentError, with the knobs as the places."""
    knobs = searched_knobs(_experiment(folder))
    if not knobs:
        raise SearchError(f"search '{folder.name}' has no searched knob, so there is nothing to enqueue")
    given = under_searched_names(values, knobs)
    wrong = {
        name: wrong_value(value, knobs[name]) if name in knobs else unknown("searched knob", name, knobs)
        for name, value in given.items()
    }
    if problems := [InputProblem((name,), text) for name, text in wrong.items() if text]:
        raise ExperimentError(problems, "the configuration")
    try:
        (start,) = enqueued_starts(_experiment(folder, [f"search.enqueue={json.dumps([given])}"]))
    except ExperimentError as error:
        problems = [InputProblem((), one.message) for one in error.problems]
        raise ExperimentError(problems, "the configuration") from None
    return dict(start["params"])


def _when(folder: Path, state: SearchRecord, journalled: bool) -> str:
    """Say when an enqueued configuration will be tried."""
    trials = state.settings.trials if state.settings else 0
    ahead = len(state.to_try()) + (0 if journalled else len(inbox.waiting(folder)))
    more = state.begun + ahead
    if more > trials:
        again = f"{command('resume', folder)} --trials {more}"
        return f"all {trials} trials of the search have their knobs: it is tried once there are more, by: {again}"
    if state.state == records.RUNNING and not journalled:
        return "the search runs: it is the next trial that it proposes"
    return f"it is the next trial that the search proposes; go on by: {command('resume', folder)}"
