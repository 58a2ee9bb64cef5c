r"""A bilevel problem of one's own: two losses over named tensors, and every estimator solves it.

    minimize over phi    F(phi) = outer(phi, theta_T(phi))
    where                theta_0 = start(phi),  theta_{t+1} = update(theta_t, d inner(phi, theta_t) / d theta)

``bilevel`` derives the whole ``Problem`` from the two losses. It finds out by which routes each tensor of phi takes
part (the start, the inner loss, the update, the outer loss), so that an estimator that is blind to all of them is
refused instead of silently returning zero.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.fields import make_config
from metaloom.learners.hypergradients.auto import AUTO, Facts, make_estimator
from metaloom.learners.hypergradients.problem import Estimator, Hypergradient, Linearized, Outer, Problem, Route
from metaloom.learners.knowledge.update_rules import UPDATE_RULES, UpdateRule
from metaloom.learners.registry import Registry
from metaloom.learners.solvers.example_gradients import ExampleGradients, autograd_gradients, functional_gradients
from metaloom.learners.solvers.rules import check_stationary
from metaloom.learners.tensors import InnerState, Tensors, as_leaves, detach, part, under

Loss = Callable[..., Tensor]
UPDATE = "update"


@dataclass(frozen=True)
class Bilevel:
    """A bilevel problem: the arguments of ``bilevel``, and what is derived from them."""

    inner: Loss
    outer: Loss
    phi: Mapping[str, Tensor]
    start: Mapping[str, Tensor] | Callable[[Tensors], Tensors]
    update: Mapping[str, Any]
    sample: Callable[[Generator], Any] | None = None

    @cached_property
    def rule(self) -> UpdateRule:
        """Return the update rule; raises LearnerError for settings that it does not have."""
        rest = {name: value for name, value in self.update.items() if name != "kind"}
        kind = self.update.get("kind", "sgd")
        rule: UpdateRule = UPDATE_RULES[kind](make_config(UPDATE_RULES[kind].Config, rest, "learner.update", kind))  # type: ignore[assignment]
        return rule

    def with_update(self, settings: Mapping[str, Any]) -> "Bilevel":
        """Return the same problem under other settings of its update rule, or under another rule."""
        same = settings.get("kind", self.update.get("kind", "sgd")) == self.update.get("kind", "sgd")
        return replace(self, update={**self.update, **settings} if same else settings)

    def __call__(self) -> "Bilevel":
        """Return this problem, as the entry of ``PROBLEMS`` that it is."""
        return self

    @property
    def precision(self) -> str:
        """Return the name of the tensors' dtype, such as ``float64``."""
        return str(next(iter({**self.phi, **self.theta(dict(self.phi))}.values())).dtype).removeprefix("torch.")

    def theta(self, phi: Tensors) -> Tensors:
        """Return theta before the first inner step."""
        return dict(self.start(phi)) if callable(self.start) else dict(self.start)

    def initial(self, generator: Generator) -> Tensors:
        """Return phi at its start: the tensors given, and under ``update/`` what the update rule learns."""
        own = {name: value.detach().clone() for name, value in self.phi.items()}
        theta = self.theta(own)
        learned = self.rule.init(theta, generator)
        like = next(iter(theta.values()))
        return own | under(UPDATE, {name: value.to(like) for name, value in learned.items()})

    def data(self, generator: Generator) -> tuple[Any, ...]:
        """Draw what both losses are given beside phi and theta: nothing, or one episode's data."""
        return () if self.sample is None else (self.sample(generator),)

    def problem(self, data: tuple[Any, ...] = (), *, functional: bool = False) -> Problem:
        """Pose one episode of this data, differentiated by ``torch.func`` if ``functional``."""
        rule = self.rule

        def linearize(phi: Tensors, theta: Tensors) -> ExampleGradients:
            def losses_at(moved: Tensors) -> Tensor:
                return scalar(self.inner(phi, theta | moved, *data), "inner").reshape(1)

            if functional:
                return functional_gradients(losses_at, rule.adapted(theta))
            again = any(value.requires_grad for value in (*phi.values(), *theta.values()))
            return autograd_gradients(losses_at, rule.adapted(theta), differentiable=again)

        def gradient(phi: Tensors, theta: Tensors, index: int) -> Tensors:
            linear = linearize(phi, theta)
            return linear.pull(torch.ones_like(linear.losses))

        def linearized(phi: Tensors, theta: Tensors) -> Linearized:
            linear = linearize(phi, theta)
            inner_gradient = linear.measure(torch.ones_like(linear.losses))
            return Linearized(inner_gradient, lambda moved: self.inner(phi, theta | moved, *data))

        def update(phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
            if rule.reads_loss:
                loss = self.inner(phi, state.theta, *data)
                state = InnerState(state.theta, state.buffers | {"loss": loss})
            return rule.step(part(phi, UPDATE, optional=True), state, gradient, index)

        def regularization(phi: Tensors, theta: Tensors) -> Tensors:
            return rule.regularization(part(phi, UPDATE, optional=True), theta, rule.config.steps - 1)

        return Problem(
            steps=rule.config.steps,
            start=self._start,
            gradient=gradient,
            update=update,
            outer=lambda phi, theta, taken: self._outer(phi, theta, data),
            linearized=linearized,
            regularization=regularization,
            routes=self.routes,
        )

    def _start(self, phi: Tensors) -> InnerState:
        theta = self.theta(phi)
        return InnerState(theta, self.rule.begin(theta))

    def _outer(self, phi: Tensors, theta: Tensors, data: tuple[Any, ...]) -> Outer:
        loss = scalar(self.outer(phi, theta, *data), "outer")
        return Outer(loss, torch.full_like(loss, torch.nan).detach(), {})

    @cached_property
    def routes(self) -> Mapping[str, frozenset[Route]]:
        """The routes by which each tensor of phi reaches the outer loss; raises LearnerError for unfit losses."""
        generator = torch.Generator().manual_seed(0)
        phi, data = self.initial(generator), self.data(generator)
        leaves, theta = as_leaves(phi), detach(self.theta(detach(phi)))
        if not theta:
            raise LearnerError("start: there is no tensor for the inner loop to move")
        moving = as_leaves(self.rule.adapted(theta))
        if not moving:
            raise LearnerError(
                f"learner.update.adapt: it moves none of {', '.join(theta)}; a head's name begins with head."
            )
        start = self.theta(leaves)
        inner, outer = (
            scalar(loss(leaves, theta | moving, *data), which)
            for loss, which in ((self.inner, "inner"), (self.outer, "outer"))
        )
        reached = {
            Route.START: _reached([value for name, value in start.items() if name in moving], leaves),
            Route.STILL_START: _reached([value for name, value in start.items() if name not in moving], leaves),
            Route.INNER: _reached(_gradients(inner, moving), leaves),
            Route.UPDATE: {name for name in phi if name.startswith(f"{UPDATE}/")},
            Route.OUTER: _reached([outer], leaves),
        }
        if self.rule.config.steps == 0:
            reached |= {Route.INNER: set(), Route.UPDATE: set()}
        routes = {name: frozenset(route for route, names in reached.items() if name in names) for name in phi}
        if unused := [name for name, through in routes.items() if not through]:
            raise LearnerError(f"phi: '{unused[0]}' takes no part in start, inner or outer; remove it")
        return routes

    def estimator(self, kind: str | Mapping[str, Any], phi: Tensors) -> tuple[Estimator, str]:
        """Build an estimator, with why ``auto`` chose it; raises LearnerError if it would be wrong for this problem."""

        def facts() -> Facts:
            size = sum(value.numel() * value.element_size() for value in self.theta(phi).values())
            return Facts(self.rule.config.steps, {"loss": sum(value.numel() for value in phi.values())}, size, size)

        estimator, reason = make_estimator(kind, facts)
        if estimator.online_only:
            raise LearnerError(
                f"outer.hypergradient: {estimator.name} follows an inner loop that persists, and this one restarts"
            )
        estimator.require_signal(self.routes)
        check_stationary(estimator, self.rule)
        return estimator, reason

    def hypergradient(
        self, phi: Tensors | None = None, *, estimator: str | Mapping[str, Any] = AUTO, seed: int = 0, **settings: Any
    ) -> Hypergradient:
        """Return dF/dphi, one tensor per tensor of phi, with the outer loss and the estimator's diagnostics.

        Args:
            phi: Where; None is the start. What the update rule learns is under ``update/``.
            estimator: Its name, ``auto``, or its name (``kind``) with its settings.
            seed: Of the data that ``sample`` draws, and of an estimator that draws.
            settings: The estimator's settings, besides its name.

        Raises:
            LearnerError: The estimator is refused here, or diverges; a name in phi is unknown or missing.
        """
        generator = torch.Generator().manual_seed(seed)
        at = self.initial(generator)
        for name in phi or {}:
            if name not in at:
                raise LearnerError(f"phi: {unknown('tensor', name, at)}")
        at |= phi or {}
        given = {"kind": estimator} if isinstance(estimator, str) else dict(estimator)
        made, _ = self.estimator({**given, **settings}, at)
        problem = self.problem(self.data(torch.Generator().manual_seed(seed)), functional=made.functional)
        return made(replace(problem, generator=generator), at)


def scalar(loss: Tensor, which: str) -> Tensor:
    """Return a loss; raises LearnerError if it is not a tensor of no dimensions."""
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise LearnerError(f"{which}: must return a tensor of no dimensions, got {got}")
    return loss


def _gradients(total: Tensor, leaves: Tensors) -> list[Tensor]:
    grads: tuple[Tensor | None, ...] = ()
    if total.requires_grad:
        grads = torch.autograd.grad(total, list(leaves.values()), create_graph=True, allow_unused=True)
    used = [one for one in grads if one is not None]
    if not used:
        raise LearnerError("inner: it does not depend on theta")
    return used


def _reached(outputs: list[Tensor], leaves: Tensors) -> set[str]:
    """Return the names of the leaves that any of the outputs is a function of."""
    totals = [output.sum() for output in outputs if output.requires_grad]
    if not totals:
        return set()
    grads = torch.autograd.grad(torch.stack(totals).sum(), list(leaves.values()), allow_unused=True, retain_graph=True)
    return {name for name, grad in zip(leaves, grads, strict=True) if grad is not None}


PROBLEMS: Registry[Callable[[], Bilevel]] = Registry("bilevel problem")


def document_of(posed: Bilevel) -> dict[str, Any]:
    """Return the sections of an experiment on a problem; one without a name is registered, in this process alone."""
    name = PROBLEMS.name_of(posed)
    if not name:
        name = f"problem-{len(PROBLEMS)}"
        PROBLEMS.add(name, posed)
    outer: dict[str, Any] = {"precision": posed.precision}
    if posed.sample is None:  # every episode is the same
        outer |= {"meta_batch": 1, "validation_episodes": 2}
    update = {name: value for name, value in posed.update.items() if not isinstance(value, Tensor)}
    return {
        "name": "bilevel",
        "tasks": {"source": "bilevel", "problem": name},
        "learner": {"update": update},
        "outer": outer,
    }


def bilevel(
    inner: Loss,
    outer: Loss,
    *,
    phi: Mapping[str, Tensor],
    start: Mapping[str, Tensor] | Callable[[Tensors], Tensors],
    update: str | Mapping[str, Any] = "sgd",
    sample: Callable[[Generator], Any] | None = None,
    **settings: Any,
) -> Bilevel:
    """Pose a bilevel problem by its two losses.

    Args:
        inner: (phi, theta), and the data where ``sample`` draws some, to the inner loss: [].
        outer: The same for the outer loss: [].
        phi: Where the learned tensors start, by name; a name may not begin with ``update/``.
        start: Where the inner tensors start, by name, or a function of phi that returns them.
        update: The update rule's name, or its ``kind`` and settings, as ``learner.update`` of an experiment takes them.
            A rate given as ``{"learn": {}}`` is learned with phi.
        sample: Draws one episode's data from a generator; every outer step draws other data.
        settings: The update rule's settings, such as ``rate`` and ``steps``.

    Raises:
        LearnerError: A name or a setting is unknown, or a loss does not fit.
    """
    for name in phi:
        if name.startswith(f"{UPDATE}/") or not name:
            raise LearnerError(f"phi: the name '{name}' is kept for what the update rule learns; choose another")
    given = {"kind": update} if isinstance(update, str) else dict(update)
    posed = Bilevel(inner, outer, phi, start, {**given, **settings}, sample)
    posed.routes  # noqa: B018 (raises the errors of losses that do not fit)
    return posed
