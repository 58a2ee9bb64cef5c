"""``metaloom check``: validate an experiment, and compare each learned knob's hypergradient."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloom.dashboards import rows
from metaloom.learners import build_learner
from metaloom.learners.base import Learner
from metaloom.orchestrator.given_tasks import with_tasks
from metaloom.orchestrator.messages import trial_config
from metaloom.orchestrator.reading import Source, read_experiment
from metaloom.orchestrator.rehearsal import drawn_networks, members, rehearse
from metaloom.orchestrator.store import DEFAULT_STORE, Store
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import Value
from metaloom.search_spaces.resolve import Given, Resolved, defaults, resolve, staged
from metaloom.search_spaces.sections.starts import needed_stages
from metaloom.workers.assembly import assemble
from metaloom.workers.bundle_reading import bundle_start
from metaloom.workers.checking import EXACT, Check, check_hypergradient
from metaloom.workers.records.names import CACHE_FOLDER
from metaloom.workers.records.results import EstimatorCheck

LEARNER = "learner"


def check_experiment(
    experiment: Source,
    overrides: Sequence[str] = (),
    *,
    store: str | Path = DEFAULT_STORE,
    tasks: Any = None,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Check an experiment: each member of each choice once, every other searched knob at its default.

    Args:
        experiment: An ``Experiment``, a YAML file, the name of a preset, or a mapping of sections.
        overrides: ``PATH=VALUE`` each, as for ``--set``.
        store: Folder of all records, whose cache holds the prepared data.
        tasks: Instead of the experiment's tasks, data of your own; see ``metaloom.search``.
        trust_code: Import the classes that ``learner.architecture.of`` names: their code runs here.

    Returns:
        The document of ``metaloom check --json``, which ``CheckRow`` documents.

    Raises:
        BadInput: The experiment or its data are wrong; all problems at once.
    """
    loaded = read_experiment(with_tasks(experiment, tasks, Store(store)), overrides)
    store = Path(store)
    with Store(store).taken_back():
        rehearse(loaded, cache=store / CACHE_FOLDER, trust_code=trust_code)
    details: dict[str, rows.KnobRow] = {}
    checks: list[rows.MemberRow] = []
    estimators: dict[str, EstimatorCheck] = {}
    flagged = ""
    for number, (chosen, resolved) in enumerate(_distinct(loaded)):
        checked = _check(loaded, resolved, store, compare=number == 0)
        estimators |= checked.estimators
        for knob, used in _knob_rows(checked):
            details[_name(knob, chosen, resolved)] = used
        for stage in needed_stages(resolved.stages, resolved.learner):
            own = replace(staged(resolved, stage), stages=resolved.stages)
            for knob, used in _knob_rows(_check(loaded, own, store, compare=False)):
                details.setdefault(_name(f"stages.{own.stage}.{knob}", chosen, resolved), used)
        member = rows.MemberRow(
            chosen=chosen,
            knobs={knob: comparison.relative_error for knob, comparison in checked.knobs.items()},
            estimator=checked.estimator,
            reason=checked.reason,
            diagnostics=checked.diagnostics,
        )
        checks.append(member)
        flagged = flagged or checked.flagged
    document = rows.CheckRow(
        name=loaded.name,
        estimator=checks[0].estimator,
        reason=checks[0].reason,
        knobs={name: detail.relative_error for name, detail in details.items()},
        details=details,
        members=tuple(checks),
        estimators=estimators,
        flagged=flagged or None,
        verdict=flagged or _verdict(details),
    )
    return dict(rows.to_json(document))


def _knob_rows(checked: Check) -> Iterator[tuple[str, rows.KnobRow]]:
    for knob, comparison in checked.knobs.items():
        yield knob, rows.KnobRow(**vars(comparison), estimator=checked.estimator, exact=checked.exact)


def _distinct(experiment: Experiment) -> Iterator[tuple[Mapping[str, Value], Resolved]]:
    """Yield the default, then each member of each choice that gives a different learner."""
    yielded: set[str] = set()
    for chosen in members(experiment):
        resolved = resolve(experiment, Given(chosen, defaults(experiment)))
        parts = json.dumps([resolved.stages, resolved.learner, resolved.inner, resolved.outer], sort_keys=True)
        if parts not in yielded:
            yielded.add(parts)
            yield chosen, resolved


def _check(experiment: Experiment, resolved: Resolved, store: Path, *, compare: bool) -> Check:
    outer, resources = {**resolved.outer, "precision": "float64"}, {**resolved.resources, "device": "cpu"}
    exact = replace(resolved, outer=outer, resources=resources)
    config = trial_config(exact, search=experiment.name, trial=0, seed=experiment.seed)
    start = bundle_start(config.learner, drawn_networks(resolved, experiment.seed, store / CACHE_FOLDER))
    parts = assemble(config, cache=store / CACHE_FOLDER, start=start, trust_code=True)  # rehearsed

    def build(kind: str) -> Learner:
        given = config.outer.get("hypergradient")
        own = isinstance(given, Mapping) and given.get("kind") == kind
        outer = {**config.outer, "hypergradient": given if own else {"kind": kind}, "strategy": "loop"}
        task = parts.source.shape
        return build_learner(
            learner=config.learner, inner=config.inner, outer=outer, task=task, start=start, trust_code=True
        )

    return check_hypergradient(parts.learner, parts.source, seed=experiment.seed, build=build if compare else None)


def _name(knob: str, chosen: Mapping[str, Value], resolved: Resolved) -> str:
    member = resolved.knobs.get(LEARNER)
    if member is not None and (knob == LEARNER or knob.startswith(f"{LEARNER}.")):
        knob = f"{LEARNER}[{member}]{knob.removeprefix(LEARNER)}"
    others = " and ".join(f"{name} is {value}" for name, value in chosen.items() if name != LEARNER)
    return f"{knob} where {others}" if others else knob


def _verdict(details: Mapping[str, rows.KnobRow]) -> str:
    """Return whether all hypergradients are exact, with one sentence for each reason why some are not."""
    if not details:
        return "No knob is learned: there is no hypergradient to compare."
    reasons: dict[str, list[str]] = {}
    for name, detail in details.items():
        if not detail.relative_error <= EXACT:
            reasons.setdefault(_reason(detail), []).append(name)
    if not reasons:
        return f"Every hypergradient is exact (relative error at most {EXACT:g})."
    return "\n".join(f"Not exact: {', '.join(names)}. {reason}" for reason, names in reasons.items())


def _reason(detail: rows.KnobRow) -> str:
    """Return the likely reason why a knob's hypergradient differs from central differences."""
    if detail.approximation:
        return f"By design: {detail.approximation}."
    estimator = f"The estimator '{detail.estimator}'"
    if not detail.exact:
        advice = "compare with --set outer.hypergradient=unroll"
        return f"{estimator} leaves terms out by design, or has not converged: {advice}"
    jump = "the objective may jump near the point of the check (ReLU, max-pooling)"
    advice = "check another point with --set seed=1. If the error stays, please report the fault"
    return f"{estimator} leaves nothing out, so {jump}: {advice}"
