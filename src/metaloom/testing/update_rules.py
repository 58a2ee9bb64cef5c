"""Every estimator under every setting of an update rule: right or refused.

The settings come from the rules' configurations and the estimators from their registry.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from metaloom.learners import ESTIMATORS
from metaloom.learners.base import Learner
from metaloom.learners.domains import Int, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import Field, fields_of
from metaloom.learners.knowledge.update_rules import UPDATE_RULES
from metaloom.learners.tensors import Tensors, flatten
from metaloom.testing.contract import Contract
from metaloom.testing.problems import begun, built, episode_of, errors_by_slot, seeded

TASK = TaskShape("regression", (2,), 1, single_task=True, counts=(5, 3, 4))
PATH, CONVERGED = 3, 80  # inner steps: a short path, and enough to solve the proximal regression to rounding
# settings of an estimator at which it claims the exact hypergradient of this problem
GENEROUS: Mapping[str, Mapping[str, Any]] = {
    "conjugate_gradient": {"iterations": 60},
    "normal_equations": {"iterations": 100},
    "neumann": {"terms": 60, "alpha": 0.18},
    "fixed_point": {"iterations": 120},
    "nystrom": {"rank": 60, "rho": 1e-10},
    "truncated": {"last": 1000, "first_order_start": True},
    "segments": {"length": 1000},
    "forward": {"limit": 1000},
}
WHOLE_PATH = ("truncated", "segments")  # exact where they cut nothing


class Variant(NamedTuple):
    """An update rule with some of its settings changed, and what it is called in a report."""

    rule: str
    update: Mapping[str, Any]
    name: str

    def __str__(self) -> str:
        return self.name


def away(field: Field, now: Any) -> list[Any]:
    """Return values of a setting away from its value, by its domain and its type."""
    if field.name == "rate":
        return [0.7 * now]
    if field.items is not None:  # names of parameters, of which this problem has a weight and a bias
        return [["head.bias"] if field.name == "frozen" else ["head.weight"]]
    if field.options:
        return [option for option in field.options if option != now]
    if isinstance(field.domain, Real):
        return [(field.domain.low + field.domain.high) / 2]
    if isinstance(field.domain, Int):
        return [3 if now != 3 else 2]
    return [0.5 * now if now else 0.5]


def variants(kind: str, base: Mapping[str, Any]) -> Iterator[Variant]:
    """Yield a rule with each of its settings changed, fixed and learned, and with all of them changed."""
    yield Variant(kind, base, f"{kind}-base")
    together, settings = dict(base), fields_of(UPDATE_RULES[kind].Config)
    for name, field in settings.items():
        if name in ("steps", "evaluation_steps"):  # the lengths of the path, which every test here sets
            continue
        now = base.get(name, field.default)
        for value in away(field, now):
            if name != "only":  # it takes the place of ``adapt``
                together[name] = value
            yield Variant(kind, {**base, name: value}, f"{kind}-{name}={value}")
        if isinstance(field.domain, Real) and field.domain.per:
            start = now or (field.domain.low + field.domain.high) / 2
            yield Variant(kind, {**base, name: {"learn": {"start": start}}}, f"{kind}-{name}-learned")
    yield Variant(kind, together, f"{kind}-together")
    rate = settings["rate"].domain
    if isinstance(rate, Real) and rate.per:
        spread = {"rate": {"learn": {"start": base.get("rate", 0.1)}}, "start_spread": 0.5}
        yield Variant(kind, {**base, **spread}, f"{kind}-spread")


def error(found: Tensors, exact: Tensors) -> float:
    """Return the relative error of a hypergradient."""
    return float((flatten(found) - flatten(exact)).norm() / flatten(exact).norm())


class UpdateRuleContract(Contract):
    """The contract of update rules under every estimator, and of estimators under every update rule.

    Attributes:
        rows: A rule's name to settings at which it solves a proximal linear regression, in 80 steps; its
            curvature lies between 4 and 8.
        estimators: An estimator's name to settings at which it claims the exact hypergradient of that problem; those
            that are not here have their defaults.
    """

    rows: Mapping[str, Mapping[str, Any]] = {}
    estimators: Mapping[str, Mapping[str, Any]] = GENEROUS

    def cases(self) -> Mapping[str, Iterable[Any]]:
        found = [variant for kind, base in self.rows.items() for variant in variants(kind, base)]
        return {"variant": found, "cutting": WHOLE_PATH}

    def learner_of(self, variant: Variant, steps: int, kind: str) -> Learner:
        """Build a proximal linear regression whose start and example weights are learned."""
        settings = {
            "architecture": {"kind": "mlp", "hidden": []},
            "initialization": {"kind": "learned"},
            "weighting": {"kind": "per_sample"},
            "loss": {"kind": "mse"},
            "update": {"kind": variant.rule, **variant.update, "steps": steps},
        }
        chosen = {"kind": kind, **self.estimators.get(kind, {})}
        return built(settings, TASK, inner={"proximal": 4.0 if steps == CONVERGED else 1.0}, estimator=chosen)

    def estimated(self, variant: Variant, steps: int, kind: str) -> Tensors | None:
        """Return an estimator's hypergradient; None where it is refused."""
        try:
            learner = self.learner_of(variant, steps, kind)
            phi, state = begun(learner)
            return learner.meta_step(phi, state, [episode_of(TASK, 1)], seeded(0)).gradient
        except LearnerError:
            return None

    def test_along_a_path_exact_estimators_agree_with_central_differences(self, variant: Variant) -> None:
        learner = self.learner_of(variant, PATH, "unroll")
        if not learner.approximations:
            # a long displacement suffers from curvature, a short one from rounding; a wrong gradient disagrees at both
            tried = (
                max(errors_by_slot(learner, [episode_of(TASK, 1)], directions=1, length=length).values())
                for length in (1e-4, 2e-5)
            )
            assert any(largest < 1e-8 for largest in tried)
        exact = self.estimated(variant, PATH, "unroll")
        assert exact is not None
        for kind in ESTIMATORS:
            if ESTIMATORS[kind].exact:
                result = self.estimated(variant, PATH, kind)
                assert result is not None and error(result, exact) < 1e-10, kind

    def test_what_is_cut_nowhere_is_exact(self, variant: Variant, cutting: str) -> None:
        result, exact = (self.estimated(variant, PATH, kind) for kind in (cutting, "unroll"))
        assert exact is not None
        if cutting == "segments":
            assert result is None
        else:
            assert result is not None and error(result, exact) < 1e-10

    def test_at_a_solution_an_implicit_estimator_is_right_or_refused(self, variant: Variant) -> None:
        kinds = [kind for kind in ESTIMATORS if ESTIMATORS[kind].at_solution]
        every = {kind: self.estimated(variant, CONVERGED, kind) for kind in kinds}
        answers = {kind: found for kind, found in every.items() if found is not None}
        learned = any(isinstance(value, dict) for value in variant.update.values())
        assert not learned or not answers  # no estimator at the solution sees what the update rule learns
        exact = self.estimated(variant, CONVERGED, "adjoint") if answers else None
        for kind, gradient in answers.items():
            assert exact is not None and error(gradient, exact) < 1e-8, kind
