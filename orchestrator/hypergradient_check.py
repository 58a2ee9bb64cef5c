"""``metaloom check``: is the experiment valid, and is each learned knob's hypergradient right?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve


def check_experiment(source: str, overrides: Sequence[str], *, store: Path) -> dict[str, Any]:
    """Check an experiment with every searched knob at its default.

    Returns:
        ``name``, ``estimator``, ``knobs`` (name to relative error), ``details`` (name to ``relative_error``,
        ``norm``, ``numbers``), ``diagnostics`` of the estimator, and a ``verdict`` in words.

    Raises:
        BadInput: The experiment or its data are wrong; all problems at once.
    """
    experiment = load_experiment(source, overrides)
    resolved = resolve(experiment, defaults(experiment))

    from dataclasses import asdict

    from metaloom.workers import checking
    from metaloom.workers.assembly import assemble
    from metaloom.workers.data import prepare
    from metaloom.workers.records import TrialConfig

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
    cache = store / "cache"
    prepare(config.tasks, cache=cache)
    parts = assemble(config, cache=cache)
    checked = checking.check_hypergradient(parts.learner, parts.source, seed=experiment.seed)
    errors = {knob: one.relative_error for knob, one in checked.knobs.items()}
    wrong = [knob for knob, error in errors.items() if not error <= checking.EXACT]
    return {
        "name": experiment.name,
        "estimator": checked.estimator,
        "knobs": errors,
        "details": {knob: asdict(one) for knob, one in checked.knobs.items()},
        "diagnostics": dict(checked.diagnostics),
        "verdict": _verdict(checked.estimator, wrong, checking.EXACT),
    }


def _verdict(estimator: str, wrong: list[str], bound: float) -> str:
    if not wrong:
        return f"Every hypergradient is exact (relative error at most {bound:g})."
    return (
        f"Not exact: {', '.join(wrong)}. The estimator '{estimator}' leaves terms out by design, or has not "
        "converged: compare with --set outer.hypergradient=unroll"
    )
