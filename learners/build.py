"""From resolved settings to a learner: the only place that knows which component fills which slot."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, NamedTuple, cast

import torch

from metaloom import learners
from metaloom.learners.base import METHODS, Learner
from metaloom.learners.component import Component, Composite, Slot
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.fields import make_config
from metaloom.learners.hypergradients.auto import AutoConfig, choose
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Estimator,
    Mapper,
    drifts,
    needs_stationary,
    one_by_one,
)
from metaloom.learners.knowledge.augmentation import AUGMENTATIONS
from metaloom.learners.knowledge.composition import ChainOfAugmentations, ProductOfWeights, SumOfLosses
from metaloom.learners.knowledge.distilled_data import DATA
from metaloom.learners.knowledge.initialization import FROM_BUNDLE, INITIALIZATIONS
from metaloom.learners.knowledge.loss import LOSSES, Loss
from metaloom.learners.knowledge.matched_data import MatchedData
from metaloom.learners.knowledge.sample_weights import WEIGHTINGS, Weighting
from metaloom.learners.knowledge.update_rules import UPDATE_RULES, UpdateRule
from metaloom.learners.networks.base import ARCHITECTURES, HEAD, Network, is_relaxed
from metaloom.learners.plugins import LEARNERS, load_plugins
from metaloom.learners.solvers.facts import facts_of
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.solvers.inner_loop import InnerConfig, Slots
from metaloom.learners.solvers.joint import JointLearner
from metaloom.learners.solvers.matching import MatchingLearner
from metaloom.learners.solvers.metric import NearestNeighbourLearner, PrototypicalLearner
from metaloom.learners.solvers.prediction import PREDICTIONS, Prediction, Prototypes
from metaloom.learners.task_kinds import names_served
from metaloom.learners.tensors import InnerState, Tensors

for _module in walk_packages(learners.__path__, "metaloom.learners."):
    if not _module.name.endswith(".build"):
        import_module(_module.name)  # every file registers what it defines: no list is kept by hand

SLOTS: dict[str, Slot] = {
    slot.name: slot
    for slot in (
        Slot("architecture", ARCHITECTURES, fixed="mlp", learned="cells"),
        Slot("initialization", INITIALIZATIONS, fixed="random", learned="learned"),
        Slot("update", UPDATE_RULES, fixed="sgd", learned="learned_optimizer"),
        Slot("weighting", WEIGHTINGS, fixed="uniform", learned="meta_weight_net", combined=ProductOfWeights),
        Slot("loss", LOSSES, fixed="cross_entropy", combined=SumOfLosses),
        Slot("data", DATA, fixed="support", learned="distilled"),
        Slot("augmentation", AUGMENTATIONS, fixed="none", learned="dada", combined=ChainOfAugmentations),
        Slot("prediction", PREDICTIONS, fixed="linear"),
    )
}
NEEDS_TASK = ("architecture", "data", "loss", "weighting")
AUTO = "auto"


def make_component(slot: Slot, settings: Mapping[str, Any], task: TaskShape) -> Component:
    """Build the component that fills a slot from its settings, ``kind`` among them."""
    kind = settings.get("kind", slot.fixed)
    component = slot.registry[kind]
    rest = {name: value for name, value in settings.items() if name != "kind"}
    config = make_config(component.Config, rest, f"learner.{slot.name}", kind)
    return component(config, task) if slot.name in NEEDS_TASK else component(config)  # type: ignore[call-arg]


def fill_slot(
    slot: Slot, settings: Mapping[str, Any] | Sequence[Mapping[str, Any]], default: Mapping[str, Any], task: TaskShape
) -> Component:
    """Build what fills a slot: one component, or several together from a list of settings.

    Raises:
        LearnerError: The slot takes one component alone.
    """
    if isinstance(settings, Mapping):
        return make_component(slot, {**default, **settings}, task)
    if slot.combined is None:
        kinds = " and ".join(str(one.get("kind", slot.fixed)) for one in settings)
        raise LearnerError(f"learner.{slot.name}: takes one component, got {kinds}; keep one")
    return slot.combined([make_component(slot, {**default, **one}, task) for one in settings])


class Chosen(NamedTuple):
    """An estimator with its name, and why it was chosen; empty where the experiment names it."""

    name: str
    estimator: Estimator
    reason: str


def make_estimator(settings: str | Mapping[str, Any], slots: Slots, task: TaskShape) -> Chosen:
    """Build the estimator, resolving ``auto``, and refuse one that gives no signal to something learned.

    Raises:
        LearnerError: A learned slot would get a gradient of zero.
    """
    if isinstance(settings, str):
        settings = {"kind": settings}
    kind = settings.get("kind", AUTO)
    rest = {name: value for name, value in settings.items() if name != "kind"}
    if kind == AUTO:
        choice = choose(facts_of(slots, task), make_config(AutoConfig, rest, "outer.hypergradient", kind))
        return Chosen(choice.kind, ESTIMATORS[choice.kind](ESTIMATORS[choice.kind].Config()), choice.reason)
    estimator = ESTIMATORS[kind]
    config = make_config(estimator.Config, rest, "outer.hypergradient", kind)
    learned = [name for name, component in slots.items() if component.has_knowledge]
    blind = [name for name in learned if not estimator.gives_signal(name, rest)]
    if blind:
        able = [name for name in ESTIMATORS if all(ESTIMATORS[name].gives_signal(slot) for slot in blind)]
        verb = "learns" if len(blind) == 1 else "learn"
        raise LearnerError(
            f"outer.hypergradient: {kind} gives no signal to what learner.{' and learner.'.join(blind)} {verb}; "
            f"use one of {', '.join(able)}, or fix it"
        )
    if estimator.stationary and _drifts(slots.update):
        raise LearnerError(needs_stationary(kind, f"learner.update ({kind_of(SLOTS['update'], slots.update)})"))
    return Chosen(kind, estimator(config), "")


def _drifts(rule: UpdateRule) -> bool:
    """Whether a rule, nothing of which is learned, moves theta where its penalty and the gradient cancel."""
    theta = {f"{HEAD}probe": torch.linspace(-1, 1, 4, dtype=torch.float64)}
    buffers = rule.begin(theta) | ({"loss": torch.zeros((), dtype=torch.float64)} if rule.reads_loss else {})
    penalty = {name: torch.zeros_like(value) for name, value in theta.items()} | rule.regularization({}, theta, 0)
    return drifts(lambda state, gradient: rule.step({}, state, gradient, 0), InnerState(theta, buffers), penalty)


def build_learner(
    *,
    learner: Mapping[str, Any],
    inner: Mapping[str, Any],
    outer: Mapping[str, Any],
    task: TaskShape,
    start: Tensors | None = None,
    mapper: Mapper = one_by_one,
) -> Learner:
    """Put a learner together from the resolved sections of an experiment.

    Args:
        learner: Slot names to settings; ``method`` is its recipe's name, already merged in.
        inner: The inner section.
        outer: The outer section; ``hypergradient`` and ``strategy`` are read.
        task: The shape of the episodes.
        start: The network's parameters in the bundle that ``learner.initialization`` names, if it names one.
        mapper: Evaluates the perturbations of an estimator that has some; here, where nothing is said.

    Raises:
        LearnerError: A name is unknown, or the parts contradict each other.
    """
    settings = {name: value for name, value in learner.items() if name != "method"}
    for name in settings:
        if name not in SLOTS:
            raise LearnerError(f"learner: {unknown('slot', name, SLOTS)}")
    prediction = make_component(SLOTS["prediction"], settings.get("prediction", {}), task)
    if not isinstance(prediction, Prediction):
        raise LearnerError("learner.prediction: not a prediction")
    if type(prediction) is PREDICTIONS["nearest_neighbour"]:
        return NearestNeighbourLearner(task)
    defaults = {"loss": {"kind": task.task_kind.default_loss}}
    components = {
        name: fill_slot(slot, settings.get(name, {}), defaults.get(name, {}), task) for name, slot in SLOTS.items()
    }
    if isinstance(components["initialization"], FROM_BUNDLE):
        if start is None:
            raise LearnerError("learner.initialization: the parameters of its bundle were not handed in as start")
        components["architecture"] = cast(Network, components["architecture"]).starting_at(start)
    config = make_config(InnerConfig, inner, "inner", "the inner loop")
    if not task.task_kind.labelled and type(prediction) is not PREDICTIONS["linear"]:
        raise LearnerError("learner.prediction: a control task needs a policy's actions; use linear")
    if isinstance(prediction, Prototypes):
        return PrototypicalLearner(
            cast(Network, components["architecture"]),
            components["initialization"],
            prediction,
            config.batch_norm,
            task,
        )
    joint = type(prediction) is PREDICTIONS["joint"]
    return _gradient_learner(components, config, outer, task, joint=joint, mapper=mapper)


def _gradient_learner(
    components: Mapping[str, Component],
    config: InnerConfig,
    outer: Mapping[str, Any],
    task: TaskShape,
    *,
    joint: bool,
    mapper: Mapper,
) -> GradientLearner:
    slots = Slots(**{name: component for name, component in components.items() if name != "prediction"})  # type: ignore[arg-type]
    check_slots(slots, config, task)
    if config.carry > 1 and outer.get("tasks", 1) != 1:
        raise LearnerError(
            f"inner.carry: one inner loop is carried on, not outer.tasks ({outer['tasks']}) of them; set outer.tasks "
            "to 1 (quadratics hold a batch in one episode: tasks.functions)"
        )
    name, estimator, reason = make_estimator(outer.get("hypergradient", AUTO), slots, task)
    estimator.mapper = mapper
    if estimator.online_only and config.mode != "online":
        raise LearnerError(
            f"outer.hypergradient: {name} follows an inner loop that goes on from one outer step to the next; "
            "set inner.mode: online, or use evolution_strategies"
        )
    if estimator.at_solution and slots.initialization.has_knowledge and not config.proximal:
        raise LearnerError(
            f"outer.hypergradient: {name} gives no signal to learner.initialization without a proximal term, because "
            "the inner solution does not depend on its start; set inner.proximal above 0, or use unroll"
        )
    if joint and config.batch_norm == "per_step":
        raise LearnerError("inner.batch_norm: joint pre-training takes no inner steps; use batch, support or frozen")
    if joint:
        return JointLearner(slots, config, task, estimator, "direct", strategy="loop")
    if isinstance(slots.data, MatchedData):
        check_matching(slots, config, outer.get("hypergradient", "auto"))
        return MatchingLearner(slots, config, task, estimator, "direct", strategy="loop")
    return GradientLearner(slots, config, task, estimator, name, strategy=outer.get("strategy", "auto"), reason=reason)


def check_matching(slots: Slots, config: InnerConfig, hypergradient: str | Mapping[str, Any]) -> None:
    """Refuse what has no part in the distance of matched data, to which the inner loop is a constant.

    Raises:
        LearnerError: The message names both sides.
    """
    kind = next(kind for kind in DATA if DATA[kind] is type(slots.data))
    learned = [name for name, component in slots.items() if component.has_knowledge and name != "data"]
    if learned:
        raise LearnerError(
            f"learner.data: {kind} learns its examples alone and gives no signal to learner."
            f"{' and learner.'.join(learned)}; fix it, or use distilled"
        )
    beside = [
        name
        for name, component, neutral in (
            ("weighting", slots.weighting, WEIGHTINGS["uniform"]),
            ("augmentation", slots.augmentation, AUGMENTATIONS["none"]),
        )
        if type(component) is not neutral
    ]
    if beside:
        raise LearnerError(f"learner.data: {kind} takes no part of learner.{' and learner.'.join(beside)}; remove it")
    if config.mode == "online" or config.batch_norm == "per_step":
        raise LearnerError(f"learner.data: {kind} needs inner.mode episodic, and batch norm other than per_step")
    estimator = hypergradient if isinstance(hypergradient, str) else hypergradient.get("kind", "auto")
    if estimator not in ("auto", "unroll"):
        raise LearnerError(
            f"outer.hypergradient: {kind} has a distance of its own, which {estimator} does not estimate; remove it"
        )


def check_slots(slots: Slots, config: InnerConfig, task: TaskShape) -> None:
    """Refuse combinations that contradict each other.

    Raises:
        LearnerError: The message names both sides.
    """
    if config.mode == "online" and not task.single_task:
        raise LearnerError(
            "inner.mode: an online inner loop keeps its parameters, so it needs a single task (digits, fashion_mnist), "
            "not few-shot episodes; use episodic"
        )
    if config.carry > 1 and slots.initialization.has_knowledge:
        raise LearnerError(
            "inner.carry: an inner loop that is carried on starts in one outer step of several, so it cannot learn its "
            "initialization; use initialization: random, or carry: 1"
        )
    if config.mode == "online" and slots.initialization.has_knowledge:
        raise LearnerError(
            "inner.mode: an online inner loop starts once, so it cannot learn its initialization; "
            "use initialization: random, or mode: episodic"
        )
    if config.batch_norm == "frozen" and slots.architecture.draws_layers:
        raise LearnerError(
            "inner.batch_norm: frozen averages what every pass has seen, but learner.architecture draws other "
            "operations for each; use batch or support"
        )
    if not task.task_kind.labelled:
        _check_control(slots)
    slots.augmentation.check(task)
    for name in ("loss", "weighting"):
        for component in members_of(getattr(slots, name)):
            _check_served(name, cast(Loss | Weighting, component), task)
    for component in members_of(slots.weighting):
        if cast(Weighting, component).numbered and not (task.counts and slots.data.numbered):
            raise LearnerError(
                f"learner.weighting: {kind_of(SLOTS['weighting'], component)} learns a weight for every training "
                "example, so it needs a single task whose training set is numbered (digits, fashion_mnist) and "
                "learner.data: support"
            )


def _check_control(slots: Slots) -> None:
    """Refuse what a control task has no use for: its examples are starting states, which no slot may exchange."""
    for name in ("data", "augmentation"):
        kind = kind_of(SLOTS[name], members_of(getattr(slots, name))[0])
        if kind != SLOTS[name].fixed:
            raise LearnerError(f"learner.{name}: a control task starts from its own states; use {SLOTS[name].fixed}")
    if len(members_of(slots.loss)) > 1:
        raise LearnerError("learner.loss: a control task takes one loss; keep one")


def members_of(component: Component) -> Sequence[Component]:
    """Return the components that fill a slot together, or the one that does alone."""
    return component.members if isinstance(component, Composite) else (component,)


def _check_served(name: str, component: Loss | Weighting, task: TaskShape) -> None:
    """Refuse a component that makes nothing of this kind of task."""
    if task.task_kind.served_by(component.serves):
        return
    registry: Mapping[str, Any] = SLOTS[name].registry
    able = ", ".join(kind for kind, entry in registry.items() if task.task_kind.served_by(entry.serves))
    raise LearnerError(
        f"learner.{name}: a {task.kind} task needs one of {able}; {kind_of(SLOTS[name], component)} serves "
        f"{' and '.join(names_served(component.serves))} alone"
    )


def kind_of(slot: Slot, component: Component) -> str:
    """Return the name under which a component is registered."""
    return next(kind for kind, entry in slot.registry.items() if entry is type(component))


load_plugins(LEARNERS)  # at the end: a plugin may build on anything here

__all__ = ["ESTIMATORS", "METHODS", "SLOTS", "build_learner", "is_relaxed", "make_config"]
