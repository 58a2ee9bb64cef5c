"""Every estimator under every setting of every update rule: right, refused, or reported as unsolved; never silent.

Rules, settings and estimators come from the registries and the configurations, so that a new one, a plugin's too, is
tested without being listed.
"""

from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from metaloom.learners import ESTIMATORS
from metaloom.learners.base import Learner
from metaloom.learners.component import domain
from metaloom.learners.domains import Int, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import UNSOLVED
from metaloom.learners.knowledge.update_rules import UPDATE_RULES
from metaloom.learners.tensors import Tensors, flatten
from metaloom.workers.progress import MOST_UNSOLVED
from tests.support.bilevel import begun, built, episode_of, errors_by_slot, seeded

TASK = TaskShape("regression", (2,), 1, single_task=True, counts=(5, 3, 4))
PATH, CONVERGED = 3, 160  # inner steps: a short path, and enough to solve the proximal regression to rounding
# settings of a rule at which it solves the inner problem; of a rule that is not here they are its defaults
BASES: dict[str, dict[str, Any]] = {
    "sgd": {"rate": 0.25},
    "adam": {"rate": 0.25, "beta1": 0.5, "beta2": 0.6, "epsilon": 1.0},
    "adamw": {"rate": 0.25, "beta1": 0.5, "beta2": 0.6, "epsilon": 1.0},
    "rmsprop": {"rate": 0.25, "smoothing": 0.6, "epsilon": 1.0},
    "learned_optimizer": {"hidden": 2},
    "meta_lstm": {"rate": 0.05, "hidden": 2},
}
# settings of an estimator at which it claims the exact hypergradient of this problem
GENEROUS: dict[str, dict[str, Any]] = {
    "conjugate_gradient": {"iterations": 60},
    "normal_equations": {"iterations": 100},
    "neumann": {"terms": 200, "alpha": 0.25},
    "fixed_point": {"iterations": 200},
    "nystrom": {"rank": 60, "rho": 1e-10},
    "truncated": {"last": 1000, "first_order_start": True},
    "segments": {"length": 1000},
    "forward": {"limit": 1000},
}
WHOLE_PATH = ("truncated", "segments")  # exact where they cut nothing


def away(config: type, field: Field[Any], base: dict[str, Any]) -> list[Any]:
    """Return values of a setting away from its base value, by its domain and its type."""
    now, found = base.get(field.name, field.default), domain(config, field.name)
    hint = get_type_hints(config)[field.name]
    if field.name == "rate":
        return [0.7 * now]
    if get_origin(hint) is Literal:
        return [one for one in get_args(hint) if one != now]
    if isinstance(now, bool):
        return [not now]
    if isinstance(found, Real):
        return [(found.low + found.high) / 2]
    if isinstance(found, Int):
        return [3 if now != 3 else 2]
    return [0.5 * now if now else 0.5]


def variants() -> Iterator[Any]:
    """Yield every rule with each of its settings changed, fixed and learned, and with all of them changed."""
    for kind, rule in UPDATE_RULES.items():
        base = BASES.get(kind, {})
        yield pytest.param(kind, base, id=f"{kind}-base")
        together = dict(base)
        for field in fields(rule.Config):
            if field.name in ("steps", "evaluation_steps"):  # the lengths of the path, which every test here sets
                continue
            for value in away(rule.Config, field, base):
                together[field.name] = value
                yield pytest.param(kind, base | {field.name: value}, id=f"{kind}-{field.name}={value}")
            found = domain(rule.Config, field.name)
            if isinstance(found, Real) and found.per:
                start = base.get(field.name, field.default) or (found.low + found.high) / 2
                learned = base | {field.name: {"learn": {"start": start}}}
                yield pytest.param(kind, learned, id=f"{kind}-{field.name}-learned")
        yield pytest.param(kind, together, id=f"{kind}-together")
        if not domain(rule.Config, "rate").per:
            continue
        spread = {"rate": {"learn": {"start": base.get("rate", 0.1)}}, "start_spread": 0.5}
        yield pytest.param(kind, base | spread, id=f"{kind}-spread")


def learner_of(rule: str, update: dict[str, Any], steps: int, kind: str) -> Learner:
    """Build a proximal linear regression whose start and example weights are learned."""
    settings = {
        "architecture": {"kind": "mlp", "hidden": []},
        "initialization": {"kind": "learned"},
        "weighting": {"kind": "per_sample"},
        "loss": {"kind": "mse"},
        "update": {"kind": rule, **update, "steps": steps},
    }
    chosen = {"kind": kind, **GENEROUS.get(kind, {})}
    return built(settings, TASK, inner={"proximal": 1.0}, estimator=chosen)


def estimated(rule: str, update: dict[str, Any], steps: int, kind: str) -> tuple[Tensors, dict[str, float]] | None:
    """Return an estimator's hypergradient and diagnostics; None where it is refused."""
    try:
        learner = learner_of(rule, update, steps, kind)
        phi, state = begun(learner)
        step = learner.meta_step(phi, state, [episode_of(TASK, 1)], seeded(0))
    except LearnerError:
        return None
    return step.gradient, dict(step.diagnostics)


def error(found: Tensors, exact: Tensors) -> float:
    return float((flatten(found) - flatten(exact)).norm() / flatten(exact).norm())


@pytest.mark.parametrize(("rule", "update"), variants())
def test_along_a_path_exact_estimators_agree_with_central_differences(rule: str, update: dict[str, Any]) -> None:
    learner = learner_of(rule, update, PATH, "unroll")
    if not learner.approximations:
        # a long displacement suffers from curvature, a short one from rounding; a wrong gradient disagrees at both
        tried = (
            max(errors_by_slot(learner, [episode_of(TASK, 1)], directions=1, length=length).values())
            for length in (1e-4, 2e-5)
        )
        assert any(one < 1e-8 for one in tried)
    exact = estimated(rule, update, PATH, "unroll")
    assert exact is not None
    for kind in ESTIMATORS:
        if ESTIMATORS[kind].exact:
            found = estimated(rule, update, PATH, kind)
            assert found is not None and error(found[0], exact[0]) < 1e-10, kind


@pytest.mark.parametrize("kind", WHOLE_PATH)
@pytest.mark.parametrize(("rule", "update"), variants())
def test_what_is_cut_nowhere_is_exact(rule: str, update: dict[str, Any], kind: str) -> None:
    found, exact = (estimated(rule, update, PATH, one) for one in (kind, "unroll"))
    assert exact is not None
    assert found is None if kind == "segments" else found is not None and error(found[0], exact[0]) < 1e-10


@pytest.mark.parametrize(("rule", "update"), variants())
def test_at_a_solution_an_implicit_estimator_is_right_or_refused(rule: str, update: dict[str, Any]) -> None:
    kinds = [kind for kind in ESTIMATORS if ESTIMATORS[kind].at_solution]
    every = {kind: estimated(rule, update, CONVERGED, kind) for kind in kinds}
    answers = {kind: found for kind, found in every.items() if found is not None}
    learned = any(isinstance(value, dict) for value in update.values())
    assert not learned or not answers  # no estimator at the solution sees what the update rule learns
    exact = estimated(rule, update, CONVERGED, "adjoint") if answers else None
    for kind, (gradient, diagnostics) in answers.items():
        assert exact is not None
        assert error(gradient, exact[0]) < 1e-8 or diagnostics[UNSOLVED] > MOST_UNSOLVED, (kind, diagnostics)


@pytest.mark.parametrize("decay", [0.1, 0.4])
@pytest.mark.parametrize("kind", [kind for kind in ESTIMATORS if ESTIMATORS[kind].stationary])
def test_a_decay_of_the_loss_is_seen_and_a_decoupled_one_is_refused(kind: str, decay: float) -> None:
    found, exact = (
        estimated("sgd", {"rate": 0.25, "weight_decay": decay}, CONVERGED, one) for one in (kind, "adjoint")
    )
    assert found is not None and exact is not None and error(found[0], exact[0]) < 1e-8
    for rule in ("adam", "adamw"):
        with pytest.raises(LearnerError, match=rf"learner\.update \({rule}\).*use sgd, .*fixed_point or unroll"):
            learner_of(rule, {"weight_decay": decay}, CONVERGED, kind)
