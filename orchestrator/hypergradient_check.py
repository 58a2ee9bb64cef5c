"""``metaloom check``: validate an experiment, and compare each learned knob's hypergradient."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from metaloom.learners import build_learner
from metaloom.learners.base import Learner
from metaloom.orchestrator.messages import trial_config
from metaloom.orchestrator.reading import Source, read_experiment
from metaloom.orchestrator.rehearsal import members, rehearse
from metaloom.orchestrator.store import DEFAULT_STORE, Store
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import Value
from metaloom.search_spaces.resolve import Given, Resolved, defaults, resolve
from metaloom.workers.assembly import assemble
from metaloom.workers.checking import EXACT, Check, check_hypergradient
from metaloom.workers.pretrained import bundle_start
from metaloom.workers.records.names import CACHE_FOLDER

LEARNER = "learner"


def check_experiment(
    experiment: Source, overrides: Sequence[str] = (), *, store: str | Path = DEFAULT_STORE, trust_code: bool = False
) -> dict[str, Any]:
    """Check an experiment: each member of each choice once, every other searched knob at its default.

    Args:
        experiment: An ``Experiment``, a YAML file, the name of a preset, or a mapping of sections.
        overrides: ``PATH=VALUE`` each, as for ``--set``.
        store: Folder of all records, whose cache holds the prepared data.
        trust_code: Import the classes that ``learner.architecture.of`` names: their code runs here.

    Returns:
        ``name``, ``estimator`` (of the default) and ``reason`` (why ``auto`` chose it), ``knobs`` (name to relative
        error, None where the objective does not move with the knob), ``details`` (name to ``relative_error``,
        ``norm``, ``numbers``, ``estimator``, ``exact`` and what it leaves out: ``approximation``), ``members`` (what
        was ``chosen``, its ``estimator`` and ``reason``, ``knobs`` by their plain names, and the estimator's
        ``diagnostics``), ``estimators`` (at the default, every kind to its ``errors`` by knob, ``seconds``,
        ``peak_bytes``, ``refused`` and ``diagnostics``, None for what is not finite), ``flagged`` (why the
        default's estimator does not stand by what it would give, or None), and a ``verdict`` in words.
        Where methods are searched a knob is called as in ``learner[maml].initialization``; where a choice in it is not
        at its default the name ends as in ``where learner.architecture is conv4``.

    Raises:
        BadInput: The experiment or its data are wrong; all problems at once.
    """
    loaded = read_experiment(experiment, overrides)
    store = Path(store)
    with Store(store).taken_back():
        rehearse(loaded, cache=store / CACHE_FOLDER, trust_code=trust_code)
    details: dict[str, dict[str, Any]] = {}
    checks: list[dict[str, Any]] = []
    estimators: dict[str, dict[str, Any]] = {}
    flagged = ""
    for number, (chosen, resolved) in enumerate(_distinct(loaded)):
        checked = _check(loaded, resolved, store, compare=number == 0)
        estimators |= {kind: _finite(asdict(comparison)) for kind, comparison in checked.estimators.items()}
        used = {"estimator": checked.estimator, "exact": checked.exact}
        for knob, detail in checked.knobs.items():
            details[_name(knob, chosen, resolved)] = _finite(asdict(detail) | used)
        errors = {knob: detail.relative_error for knob, detail in checked.knobs.items()}
        chose = {"chosen": dict(chosen), "estimator": checked.estimator, "reason": checked.reason}
        checks.append({**chose, "knobs": _finite(errors), "diagnostics": _finite(checked.diagnostics)})
        flagged = flagged or checked.flagged
    return {
        "name": loaded.name,
        "estimator": checks[0]["estimator"],
        "reason": checks[0]["reason"],
        "knobs": {name: detail["relative_error"] for name, detail in details.items()},
        "details": details,
        "members": checks,
        "estimators": estimators,
        "flagged": flagged or None,
        "verdict": flagged or _verdict(details),
    }


def _distinct(experiment: Experiment) -> Iterator[tuple[Mapping[str, Value], Resolved]]:
    """Yield the default, then each member of each choice that gives a different learner."""
    yielded: set[str] = set()
    for chosen in members(experiment):
        resolved = resolve(experiment, Given(chosen, defaults(experiment)))
        parts = json.dumps([resolved.learner, resolved.inner, resolved.outer], sort_keys=True)
        if parts not in yielded:
            yielded.add(parts)
            yield chosen, resolved


def _check(experiment: Experiment, resolved: Resolved, store: Path, *, compare: bool) -> Check:
    outer, resources = {**resolved.outer, "precision": "float64"}, {**resolved.resources, "device": "cpu"}
    exact = replace(resolved, outer=outer, resources=resources)
    config = trial_config(exact, search=experiment.name, trial=0, seed=experiment.seed)
    start = bundle_start(config.learner)
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


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace numbers that are not finite, such as the error of a diverged estimate, by None."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _finite(value)
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: finite(value) for name, value in values.items()}


def _name(knob: str, chosen: Mapping[str, Value], resolved: Resolved) -> str:
    member = resolved.knobs.get(LEARNER)
    if member is not None and (knob == LEARNER or knob.startswith(f"{LEARNER}.")):
        knob = f"{LEARNER}[{member}]{knob.removeprefix(LEARNER)}"
    others = " and ".join(f"{name} is {value}" for name, value in chosen.items() if name != LEARNER)
    return f"{knob} where {others}" if others else knob


def _verdict(details: Mapping[str, Mapping[str, Any]]) -> str:
    """Return whether all hypergradients are exact, with one sentence for each reason why some are not."""
    if not details:
        return "No knob is learned: there is no hypergradient to compare."
    reasons: dict[str, list[str]] = {}
    for name, detail in details.items():
        if detail["relative_error"] is None or detail["relative_error"] > EXACT:
            reasons.setdefault(_reason(detail), []).append(name)
    if not reasons:
        return f"Every hypergradient is exact (relative error at most {EXACT:g})."
    return "\n".join(f"Not exact: {', '.join(names)}. {reason}" for reason, names in reasons.items())


def _reason(detail: Mapping[str, Any]) -> str:
    """Return the likely reason why a knob's hypergradient differs from central differences."""
    if detail["approximation"]:
        return f"By design: {detail['approximation']}."
    estimator = f"The estimator '{detail['estimator']}'"
    if not detail["exact"]:
        advice = "compare with --set outer.hypergradient=unroll"
        return f"{estimator} leaves terms out by design, or has not converged: {advice}"
    jump = "the objective may jump near the point of the check (ReLU, max-pooling)"
    advice = "check another point with --set seed=1. If the error stays, please report the fault"
    return f"{estimator} leaves nothing out, so {jump}: {advice}"
