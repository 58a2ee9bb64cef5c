"""The solver of every gradient-based method: the network's own head, moved by inner steps."""

from metaloom.learners.hypergradients.auto import AUTO
from metaloom.learners.solvers.base import SOLVERS, Parts, Solver
from metaloom.learners.solvers.facts import Chosen, make_estimator
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.solvers.inner_loop import Slots
from metaloom.learners.solvers.rules import check_estimator, check_outer, check_slots


@SOLVERS.register("linear")
class LinearHead(Solver):
    """The network's own last layer, adapted by inner steps."""

    needs_steps = True

    def learner(self, parts: Parts) -> GradientLearner:
        """Choose the estimator, and put the learner together; raises LearnerError if the parts contradict."""
        slots = Slots(**parts.components)  # type: ignore[arg-type]
        check_slots(slots, parts.inner, parts.task)
        check_outer(parts.inner, parts.outer)
        chosen = make_estimator(parts.outer.get("hypergradient", AUTO), slots, parts.task)
        check_estimator(chosen.name, chosen.estimator, slots, parts.inner)
        chosen.estimator.mapper = parts.mapper
        return self.put_together(slots, chosen, parts)

    def put_together(self, slots: Slots, chosen: Chosen, parts: Parts) -> GradientLearner:
        """Return the learner of parts that fit together."""
        strategy = parts.outer.get("strategy", "auto")
        name, estimator, reason = chosen
        return GradientLearner(slots, parts.inner, parts.task, estimator, name, strategy=strategy, reason=reason)
