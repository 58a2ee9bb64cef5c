"""``metaloom check``: is the experiment valid, and is each learned knob's hypergradient right?"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.orchestrator.store import Store
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import Value
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import Given, Resolved, defaults, resolve

if TYPE_CHECKING:
    from metaloom.learners.base import Learner
    from metaloom.workers.checking import Check

LEARNER = "learner"


def check_experiment(source: str, overrides: Sequence[str], *, store: Path) -> dict[str, Any]:
    """Check an experiment: each member of each choice once, every other searched knob at its default.

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
    experiment = load_experiment(source, overrides)

    from metaloom.orchestrator.rehearsal import rehearse  # torch: only once the experiment is known to be right
    from metaloom.workers.checking import EXACT

    with Store(store).taken_back():
        rehearse(experiment, cache=store / "cache")
    details: dict[str, dict[str, Any]] = {}
    members: list[dict[str, Any]] = []
    estimators: dict[str, dict[str, Any]] = {}
    flagged = ""
    for chosen, resolved in _distinct(experiment):
        checked = _check(experiment, resolved, store, compare=not members)
        estimators |= {kind: _finite(asdict(one)) for kind, one in checked.estimators.items()}
        for knob, one in checked.knobs.items():
            said = {"estimator": checked.estimator, "exact": checked.exact}
            details[_name(knob, chosen, resolved)] = _finite(asdict(one) | said)
        errors = _finite({knob: one.relative_error for knob, one in checked.knobs.items()})
        known = {
            "estimator": checked.estimator,
            "reason": checked.reason,
            "diagnostics": _finite(dict(checked.diagnostics)),
        }
        members.append({"chosen": dict(chosen), "knobs": errors, **known})
        flagged = flagged or checked.flagged
    return {
        "name": experiment.name,
        "estimator": members[0]["estimator"],
        "reason": members[0]["reason"],
        "knobs": {name: one["relative_error"] for name, one in details.items()},
        "details": details,
        "members": members,
        "estimators": estimators,
        "flagged": flagged or None,
        "verdict": flagged or _verdict(details, EXACT),
    }


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace numbers that JSON cannot hold, such as the error of an estimate that diverged, by None."""
    return {
        name: _finite(value)
        if isinstance(value, Mapping)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in values.items()
    }


def _distinct(experiment: Experiment) -> Iterator[tuple[Mapping[str, Value], Resolved]]:
    """Yield the default, then every member of every choice that makes another learner of it."""
    from metaloom.orchestrator.rehearsal import members

    seen: set[str] = set()
    for chosen in members(experiment):
        resolved = resolve(experiment, Given(chosen, defaults(experiment)))
        parts = json.dumps([resolved.learner, resolved.inner, resolved.outer], sort_keys=True)
        if parts not in seen:
            seen.add(parts)
            yield chosen, resolved


def _check(experiment: Experiment, resolved: Resolved, store: Path, *, compare: bool) -> "Check":
    """Check one member; ``compare`` sets every estimator beside the one that it names."""
    from metaloom.learners import build_learner
    from metaloom.workers import checking
    from metaloom.workers.assembly import assemble
    from metaloom.workers.pretrained import bundle_start
    from metaloom.workers.records.names import TrialConfig

    config = TrialConfig(
        search=experiment.name,
        trial=0,
        seed=experiment.seed,
        tasks=resolved.tasks,
        learner=resolved.learner,
        inner=resolved.inner,
        outer={**resolved.outer, "precision": "float64"},
        resources={**resolved.resources, "device": "cpu"},
    )
    start = bundle_start(config.learner)
    parts = assemble(config, cache=store / "cache", start=start)

    def build(kind: str) -> "Learner":
        given = config.outer.get("hypergradient")
        own = isinstance(given, Mapping) and given.get("kind") == kind
        outer = {**config.outer, "hypergradient": given if own else {"kind": kind}, "strategy": "loop"}
        task = parts.source.shape
        return build_learner(learner=config.learner, inner=config.inner, outer=outer, task=task, start=start)

    return checking.check_hypergradient(
        parts.learner, parts.source, seed=experiment.seed, build=build if compare else None
    )


def _name(knob: str, chosen: Mapping[str, Value], resolved: Resolved) -> str:
    """Say which member of which choice a learned knob belongs to."""
    member = resolved.knobs.get(LEARNER)
    if member is not None and (knob == LEARNER or knob.startswith(f"{LEARNER}.")):
        knob = f"{LEARNER}[{member}]{knob.removeprefix(LEARNER)}"
    others = " and ".join(f"{name} is {value}" for name, value in chosen.items() if name != LEARNER)
    return f"{knob} where {others}" if others else knob


def _verdict(details: Mapping[str, Mapping[str, Any]], bound: float) -> str:
    """Say in words whether all are exact; of those that are not, why, a sentence for each reason."""
    if not details:
        return "No knob is learned: there is no hypergradient to compare."
    reasons: dict[str, list[str]] = {}
    for name, one in details.items():
        if one["relative_error"] is None or one["relative_error"] > bound:
            reasons.setdefault(_reason(one), []).append(name)
    if not reasons:
        return f"Every hypergradient is exact (relative error at most {bound:g})."
    return "\n".join(f"Not exact: {', '.join(names)}. {reason}" for reason, names in reasons.items())


def _reason(one: Mapping[str, Any]) -> str:
    """Say why a knob's hypergradient differs from central differences, as far as it is known."""
    if one["approximation"]:
        return f"By design: {one['approximation']}."
    if not one["exact"]:
        return (
            f"The estimator '{one['estimator']}' leaves terms out by design, or has not converged: "
            "compare with --set outer.hypergradient=unroll"
        )
    return (
        f"The estimator '{one['estimator']}' leaves nothing out, so the objective may jump near where it was measured "
        "(ReLU, max-pooling): measure elsewhere with --set seed=1. If it stays, please report it: it is a fault"
    )
