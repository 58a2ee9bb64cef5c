"""A trial in words: how it ended, what it was worth, what it cost, and which commands go on from there."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaloom.dashboards.text import counted, number, scored, size, span
from metaloom.dashboards.trial_history import HistoryRow
from metaloom.dashboards.trial_values import first_aim, interval_of
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord


@dataclass(frozen=True)
class Fact:
    """A fact about a trial; ``trial`` is another trial that it is about."""

    name: str
    text: str
    trial: int | None = None


@dataclass(frozen=True)
class Advice:
    """What a reader may do next, and by which commands."""

    why: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Health:
    """One sign of whether a hypergradient can be relied on; ``recorded`` is false where a run does not measure it."""

    name: str
    text: str
    recorded: bool = True


def how_it_stands(trial: TrialRecord) -> str:
    """Say in a sentence why a trial has ended, or what it waits for."""
    steps = counted(trial.step, "outer step")
    match trial.state:
        case records.FINISHED:
            early = next((note for note in trial.notes if note.startswith("stopped early")), "")
            return f"Finished: it {early}." if early else f"Finished: all {steps} are done."
        case records.STOPPED:
            return f"Stopped after {steps}: {trial.reason or 'no reason was recorded'}."
        case records.FAILED:
            return f"Failed after {steps}: {trial.error}"
        case records.RUNNING:
            again = f", attempt {trial.attempts}" if trial.attempts > 1 else ""
            return f"Running{again}: {steps} are reported."
    if not trial.attempts:
        return "Waiting: it has not begun."
    return f"Waiting to be resumed after {steps}: {trial.reason or 'its search was interrupted'}."


def facts(search: SearchRecord, trial: TrialRecord, events: Sequence[HistoryRow]) -> tuple[Fact, ...]:
    """Return the facts of a trial's head; ``events`` are its history."""
    return tuple(_facts(search, trial, events))


def _facts(search: SearchRecord, trial: TrialRecord, events: Sequence[HistoryRow]) -> Iterator[Fact]:
    metric, last, config = first_aim(search)[0], trial.last, trial.config
    yield Fact(metric.replace("_", " "), scored(ranking.value(search, trial), interval_of(trial, metric)))
    for aim in search.settings.objectives[1:] if search.settings else ():
        yield Fact(aim.metric.replace("_", " "), number(ranking.value(search, trial, aim.metric)))
    broken = ranking.violation(search, trial) if last and search.settings and search.settings.constraints else 0.0
    if broken > 0:
        yield Fact("constraints", f"broken, by {number(broken)} in all")
    asked = "" if config is None else f" of {int(config.outer.get('steps', 0)) + config.retrain_steps:,}"
    yield Fact("outer steps", f"{trial.step:,}{asked}")
    yield Fact("time", span(last.seconds if last else None))
    yield Fact("episodes", "-" if last is None else f"{last.episodes:,}, of training and validation")
    yield Fact("worker", _worker(events) or "-")
    yield Fact("device", (last.device if last else "") or _asked_device(trial))
    if last is not None and records.PEAK_BYTES in last.metrics:
        yield Fact("peak memory", size(int(last.metrics[records.PEAK_BYTES])))
    yield Fact("seed", "-" if config is None else str(config.seed))
    yield Fact("suggested by", trial.origin or "-")
    if trial.repeat_of is not None:
        yield Fact("repeat of", f"trial {trial.repeat_of}", trial.repeat_of)
    if trial.twin is not None:
        yield Fact("same knobs as", f"trial {trial.twin}", trial.twin)
    sessions = {row.session for row in events if row.session}
    yield Fact("sessions", f"{len(sessions)}, {counted(max(0, trial.attempts - 1), 'resume')}")
    if trial.lost:
        yield Fact("workers lost", str(trial.lost))


def _worker(events: Sequence[HistoryRow]) -> str:
    """Return who has worked on the trial last."""
    return next((row.worker for row in reversed(events) if row.worker), "")


def _asked_device(trial: TrialRecord) -> str:
    asked = trial.config.resources.get("device", "auto") if trial.config else "-"
    return f"{asked} (as asked; the one in use was not recorded)" if trial.last else f"{asked} (as asked)"


def neighbours(search: SearchRecord, number_of: int) -> tuple[int | None, int | None]:
    """Return the trials before and after one, by number."""
    before = max((one for one in search.trials if one < number_of), default=None)
    return before, min((one for one in search.trials if one > number_of), default=None)


def advice(search: SearchRecord, trial: TrialRecord, name: str, store: Path) -> tuple[Advice, ...]:
    """Return what may be done with a trial next."""
    place, one = f"--store {shlex.quote(str(store))}", f"{name}-{trial.number}"
    file = f"metaloom show {name} --trial {trial.number} --yaml {place} > {one}.yaml"
    found = []
    if not trial.ended and search.state not in (records.RUNNING, records.WAITING):
        found.append(Advice("Go on with it, and with its search:", (f"metaloom resume {name} {place}",)))
    if trial.state == records.FAILED and trial.config is not None:
        found.append(Advice("Run it again on its own, here:", (file, f"metaloom train {one}.yaml {place}")))
    if trial.state == records.STOPPED and trial.config is not None:
        found.append(Advice("Train these settings to their end:", (file, f"metaloom train {one}.yaml {place}")))
    if trial.state in (records.FINISHED, records.STOPPED) and trial.last is not None:
        export = f"metaloom export {name} --trial {trial.number} --out {one}-bundle {place}"
        found.append(Advice("Export what it has learned, tested:", (export,)))
    return tuple(found)


def health(trial: TrialRecord, name: str, store: Path) -> tuple[Health, ...]:
    """Return the signs of a trial's hypergradient; what is not recorded says what records it."""
    last = trial.last
    if last is None:
        return ()
    metrics, clip = last.metrics, trial.config.outer.get("clip") if trial.config else None
    norm = metrics.get(records.HYPERGRADIENT_NORM)
    implicit = "an implicit estimator records it, such as outer.hypergradient: conjugate_gradient"
    file = f"metaloom show {name} --trial {trial.number} --yaml --store {shlex.quote(str(store))} > trial.yaml"
    check = f"a run does not record it; to compare with central differences: {file}; metaloom check trial.yaml"
    signs = [
        Health("estimator", last.hypergradient or "nothing is learned by a hypergradient", bool(last.hypergradient)),
        Health(
            "norm", number(norm) if norm is not None else "not recorded: there were no outer steps", norm is not None
        ),
        Health("clipping", f"to a norm of {clip:g}" if clip else "none: outer.clip is null; a number clips"),
    ]
    for metric, what, why in (
        (records.RESIDUAL, "relative residual of its solver", f"it solves no linear system; {implicit}"),
        (records.INNER_GRADIENT_NORM, "norm of the inner gradient at its solution", implicit),
    ):
        value = metrics.get(metric)
        signs.append(Health(what, f"not recorded: {why}" if value is None else number(value), value is not None))
    return (*signs, Health("error of the hypergradient", check, recorded=False))
