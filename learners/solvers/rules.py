"""What does not fit together: each rule names both sides, and what to do about it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Generator

from metaloom.learners.component import Component, Composite
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.hypergradients.problem import ESTIMATORS, Estimator
from metaloom.learners.knowledge.augmentation import NoAugmentation
from metaloom.learners.knowledge.distilled_data import DATA, SupportSet
from metaloom.learners.knowledge.loss import LOSSES, Loss, Penalty
from metaloom.learners.knowledge.sample_weights import WEIGHTINGS, Weighting
from metaloom.learners.knowledge.update_rules import UPDATE_RULES, UpdateRule
from metaloom.learners.knowledge.update_rules.base import is_named, off
from metaloom.learners.networks.base import HEAD
from metaloom.learners.registry import Registry
from metaloom.learners.solvers.base import Parts
from metaloom.learners.solvers.inner_loop import InnerConfig
from metaloom.learners.solvers.slots import Slots
from metaloom.learners.task_kinds import names_served
from metaloom.learners.tensors import InnerState


def check_matching(slots: Slots, config: InnerConfig) -> None:
    """Refuse what has no part in the distance of matched data, to which the inner loop is a constant."""
    kind = DATA.name_of(type(slots.data))
    if DATA[kind].solver != "matching":
        able = " or ".join(name for name in DATA if DATA[name].solver == "matching")
        raise LearnerError(f"learner.prediction: matching needs learner.data: {able}, got {kind}")
    learned = [name for name, component in slots.items() if component.has_knowledge and name != "data"]
    if learned:
        raise LearnerError(
            f"learner.data: {kind} learns its examples alone and gives no signal to learner."
            f"{' and learner.'.join(learned)}; fix it, or use distilled"
        )
    neutral = {"weighting": WEIGHTINGS["uniform"], "augmentation": NoAugmentation}
    if unused := [name for name, plain in neutral.items() if type(getattr(slots, name)) is not plain]:
        raise LearnerError(f"learner.data: {kind} takes no part of learner.{' and learner.'.join(unused)}; remove it")
    if slots.penalties:
        raise LearnerError(f"learner.loss: {kind} has no part for a penalty; remove it")
    if config.batch_size is not None:
        raise LearnerError(f"inner.batch_size: {kind} compares all examples at once; remove it")
    if slots.update.config.steps == 0:
        raise LearnerError(f"learner.update.steps: {kind} needs a network, got 0; use at least 1")
    if config.mode == "online" or config.batch_norm == "per_step":
        raise LearnerError(f"learner.data: {kind} needs inner.mode episodic, and batch norm other than per_step")


def check_slots(slots: Slots, parts: Parts) -> None:
    """Refuse combinations that contradict each other; raises LearnerError, which names both sides."""
    config, task = parts.inner, parts.task
    if config.mode == "online" and not task.single_task:
        raise LearnerError(
            "inner.mode: an online inner loop keeps its parameters, so it needs a single task (of your own data: "
            "tasks.episodes: single_task), not few-shot episodes; use episodic"
        )
    if config.carry > 1 and slots.initialization.has_knowledge:
        raise LearnerError(
            "inner.carry: an inner loop that is carried on starts in one outer step of several, so it cannot learn its "
            "initialization; use initialization: random, or carry: 1"
        )
    if config.carry > 1 and parts.outer.get("meta_batch", 1) != 1:
        raise LearnerError(
            f"inner.carry: one inner loop is carried on, not outer.meta_batch ({parts.outer['meta_batch']}) of them; "
            "set outer.meta_batch to 1 (quadratics hold a batch in one episode: tasks.functions)"
        )
    if config.mode == "online" and slots.initialization.has_knowledge:
        raise LearnerError(
            "inner.mode: an online inner loop starts once, so it cannot learn its initialization; "
            "use initialization: random, or mode: episodic"
        )
    check_steps(slots, config)
    check_names(slots, config)
    if config.batch_norm == "frozen" and slots.architecture.draws_layers:
        raise LearnerError(
            "inner.batch_norm: frozen averages the statistics of every pass, but learner.architecture draws other "
            "operations for each; use batch or support"
        )
    if not task.task_kind.labelled:
        _check_control(slots)
    if config.batch_size is not None and task.task_kind.inner_loop is not None:
        raise LearnerError(
            f"inner.batch_size: a {task.kind} task takes all of its own examples in each step; remove it"
        )
    slots.augmentation.check(task)
    _check_members(slots, task)


def check_steps(slots: Slots, config: InnerConfig) -> None:
    """Refuse what has no part in an inner loop of no steps, so that it would be learned without a gradient."""
    if slots.update.config.steps > 0:
        return
    for wrong, place in (
        (config.mode == "online", "mode: online"),
        (config.carry > 1, f"carry: {config.carry}"),
        (config.batch_norm == "per_step", "batch_norm: per_step"),
    ):
        if wrong:
            raise LearnerError(f"learner.update.steps: inner.{place} needs inner steps, got 0; use at least 1")
    seen = ("architecture", "initialization")  # what takes part in the query pass itself
    learned = [f"learner.{name}" for name, one in slots.items() if one.has_knowledge and name not in seen]
    if learned:
        raise LearnerError(
            f"learner.update.steps: without inner steps nothing gives a signal to {' and '.join(learned)}, which "
            f"{'is' if len(learned) == 1 else 'are'} learned; use at least 1, or fix or search it"
        )


def check_names(slots: Slots, config: InnerConfig) -> None:
    """Refuse names of layers that the network has not, and an inner loop that moves nothing."""
    rule, settings = slots.update, slots.update.config
    if slots.architecture.held and config.batch_norm == "per_step":
        raise LearnerError(
            "learner.initialization.freeze: inner.batch_norm per_step learns gamma and beta of every layer; use batch, "
            "support or frozen, or freeze: false"
        )
    if settings.adapt == "head":
        slots.architecture.check_head("learner.update.adapt: head moves the head alone")
    wanted = {f"learner.update.{setting}": getattr(settings, setting) for setting in ("only", "frozen")}
    wanted |= {"learner.loss.only": [pattern for one in slots.penalties for pattern in one.names()]}
    if not any(wanted.values()):
        return
    names = list(slots.architecture.parameters(Generator()))
    if config.batch_norm == "per_step":  # what every step has its own of is no parameter of the inner loop
        names = [name for name in names if name not in slots.architecture.norm_parameters()]
    known = list(dict.fromkeys([*(name.rpartition(".")[0] for name in names), *names]))
    for setting, patterns in wanted.items():
        for pattern in patterns:
            if not any(is_named(name, [pattern]) for name in names):
                raise LearnerError(f"{setting}: {unknown('layer or parameter', pattern, known)}")
    if not any(rule.adapts(name) for name in names):
        raise LearnerError("learner.update.frozen: no parameter is left that the inner loop moves; freeze fewer")


def _check_members(slots: Slots, task: TaskShape) -> None:
    """Refuse a loss or a weighting that does not serve this kind of task."""
    if all(isinstance(component, Penalty) for component in members_of(slots.loss)):
        kind = LOSSES.name_of(type(members_of(slots.loss)[0]))
        raise LearnerError(
            f"learner.loss: {kind} is a term of the parameters; give the loss of the examples beside it, such as "
            f"[{task.task_kind.default_loss}, {kind}]"
        )
    for component in members_of(slots.loss):
        _check_served("loss", LOSSES, cast(Loss, component), task)
    for component in members_of(slots.weighting):
        _check_served("weighting", WEIGHTINGS, cast(Weighting, component), task)
        if cast(Weighting, component).numbered and not (task.counts and slots.data.numbered):
            raise LearnerError(
                f"learner.weighting: {WEIGHTINGS.name_of(type(component))} learns a weight for every training "
                "example, so it needs a single task (of your own data: tasks.episodes: single_task) and "
                "learner.data: support"
            )


def _check_control(slots: Slots) -> None:
    """Refuse what a control task has no use for: its examples are starting states, which no slot may exchange."""
    for name, neutral, fixed in (("data", SupportSet, "support"), ("augmentation", NoAugmentation, "none")):
        if type(members_of(getattr(slots, name))[0]) is not neutral:
            raise LearnerError(f"learner.{name}: a control task starts from its own states; use {fixed}")
    if len(members_of(slots.loss)) > 1:
        raise LearnerError("learner.loss: a control task takes one loss; keep one")


def members_of(component: Component) -> Sequence[Component]:
    """Return the components that fill a slot together, or the one that fills it alone."""
    return component.members if isinstance(component, Composite) else (component,)


def _check_served(name: str, registry: Registry[Any], component: Loss | Weighting, task: TaskShape) -> None:
    """Refuse a component that does not serve this kind of task."""
    if task.task_kind.served_by(component.serves):
        return
    able = ", ".join(kind for kind, entry in registry.items() if task.task_kind.served_by(entry.serves))
    raise LearnerError(
        f"learner.{name}: a {task.kind} task needs one of {able}; {registry.name_of(type(component))} serves "
        f"{' and '.join(names_served(component.serves))} alone"
    )


def check_estimator(estimator: Estimator, slots: Slots, inner: InnerConfig) -> None:
    """Refuse an estimator that the inner loop cannot have, or that gives no signal to something learned."""
    learned = [(name, f"learner.{name}") for name, component in slots.items() if component.has_knowledge]
    if wrong := no_signal(estimator.name, learned, vars(estimator.config)):
        raise LearnerError(f"outer.hypergradient: {wrong}")
    check_stationary(estimator, slots.update)
    estimator.require_steps(slots.update.config.steps)
    if estimator.online_only and inner.mode != "online":
        raise LearnerError(
            f"outer.hypergradient: {estimator.name} follows an inner loop that goes on from one outer step to the "
            "next; set inner.mode: online, or use evolution_strategies"
        )
    unmapped = [name for name, one in slots.items() if not one.batchable]
    if estimator.functional and unmapped:
        raise LearnerError(
            f"outer.hypergradient: {estimator.name} runs the inner loop under torch.func, which learner.{unmapped[0]} "
            "cannot (an environment outside of torch, for one); use unroll or adjoint"
        )
    check_solution(estimator, slots, inner)


def check_solution(estimator: Estimator, slots: Slots, inner: InnerConfig) -> None:
    """Refuse an estimator at the inner solution where there is none, or where it does not depend on a learned start."""
    if not estimator.at_solution:
        return
    if inner.batch_size is not None:
        raise LearnerError(
            f"outer.hypergradient: {estimator.name} differentiates the solution of one inner problem, but with "
            "inner.batch_size each step has other examples; remove it, or use unroll or adjoint"
        )
    if any(not one.smooth for one in slots.penalties):
        raise LearnerError(
            f"outer.hypergradient: {estimator.name} differentiates a stationary point, and the penalty of learner.loss "
            "has none where it brings parameters to (l1 has not); set its l1 to 0, or use unroll or adjoint"
        )
    pulled = not off(inner.proximal) or any(one.toward_start for one in slots.penalties)
    if slots.initialization.has_knowledge and not pulled:
        raise LearnerError(f"outer.hypergradient: {start_unseen(estimator.name)}")


def check_stationary(estimator: Estimator, rule: UpdateRule) -> None:
    """Refuse a rule that moves theta where the inner gradient and its own penalty cancel, if the estimator rests there.

    Such a rule (with decoupled weight decay, for one) has no fixed point at a root of the inner gradient. Nothing of it
    is learned, because these estimators are blind to it, so that one step from made-up parameters shows it.
    """
    if not estimator.stationary:
        return
    everything = replace(rule.config, adapt="all", only=(), frozen=())
    rule = type(rule)(everything)
    last, theta = rule.config.steps - 1, {f"{HEAD}probe": torch.linspace(-1, 1, 4, dtype=torch.float64)}
    penalty = {name: torch.zeros_like(value) for name, value in theta.items()} | rule.regularization({}, theta, last)
    loss = {"loss": torch.zeros((), dtype=torch.float64)} if rule.reads_loss else {}
    state = InnerState(theta, rule.begin(theta) | loss)
    after = rule.step({}, state, {name: -value for name, value in penalty.items()}, last).theta
    rounding = 4 * torch.finfo(torch.float64).eps
    if any(bool(((after[name] - value).abs() > rounding * value.abs()).any()) for name, value in theta.items()):
        raise LearnerError(
            f"outer.hypergradient: {estimator.name} differentiates a root of the inner gradient, but learner.update "
            f"({UPDATE_RULES.name_of(type(rule))}) moves the parameters where it is zero (decoupled weight decay "
            "does); set learner.update.weight_decay to 0, use sgd or adam, whose decay is part of the inner gradient, "
            "or use fixed_point or unroll"
        )


def start_unseen(name: str) -> str:
    """Say why an estimator at the inner solution has no gradient of the start of the inner loop."""
    return (
        f"{name} gives no signal to learner.initialization without a proximal term, because the inner solution does "
        "not depend on its start; set inner.proximal above 0, or use unroll"
    )


def no_signal(
    kind: str, learned: Sequence[tuple[str, str]], settings: Mapping[str, Any], *, episodic: bool = False
) -> str:
    """Say that an estimator leaves something learned (slot and name) without a gradient; empty if it does not.

    If the inner loop is ``episodic``, which restarts in each outer step, no online estimator is advised.
    """
    unseen = [name for slot, name in learned if not ESTIMATORS[kind].gives_signal(slot, settings)]
    if not unseen:
        return ""
    usable = {name: one for name, one in ESTIMATORS.items() if not (episodic and one.online_only)}
    able = [name for name, one in usable.items() if all(one.gives_signal(slot) for slot, _ in learned)]
    verb = "is" if len(unseen) == 1 else "are"
    return (
        f"{kind} gives no signal to {' and '.join(unseen)}, which {verb} learned; "
        f"choose one of {', '.join(['auto', *able])}, or fix or search it"
    )


def not_read(name: str, kinds: str, reads: Iterable[str], method: str | None = None) -> str:
    """Say that a solver (of these kinds) does not use a slot that was given, for a recipe or for itself."""
    wrong = "takes no inner steps" if name == "update" else f"does not use {name}"
    slots = " and ".join(sorted(reads)) or "no other slot"
    return f"{method or kinds} {wrong} (prediction {kinds} reads {slots}); remove it, or use prediction: linear"
