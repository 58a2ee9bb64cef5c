"""From resolved settings to a learner: every registry is filled here, and every slot of one learner."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, cast

from metaloom import learners
from metaloom.learners.base import METHODS, Learner
from metaloom.learners.component import Component, Slot
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.fields import make_config
from metaloom.learners.hypergradients.auto import AUTO
from metaloom.learners.hypergradients.problem import Mapper, one_by_one
from metaloom.learners.knowledge.augmentation import AUGMENTATIONS, ChainOfAugmentations
from metaloom.learners.knowledge.distilled_data import DATA
from metaloom.learners.knowledge.initialization import FROM_BUNDLE, INITIALIZATIONS
from metaloom.learners.knowledge.loss import LOSSES, SumOfLosses
from metaloom.learners.knowledge.sample_weights import WEIGHTINGS, ProductOfWeights
from metaloom.learners.knowledge.update_rules import UPDATE_RULES, UpdateRule
from metaloom.learners.networks.base import ARCHITECTURES, Network, relaxed_network
from metaloom.learners.networks.reference import check_trusted, references_in
from metaloom.learners.networks.sequence import check_text
from metaloom.learners.outer import under_new_names
from metaloom.learners.plugins import LEARNERS, load_plugins
from metaloom.learners.solvers.base import DEFAULT_SOLVER, SOLVERS, Parts, Solver
from metaloom.learners.solvers.bilevel_learner import posed_learner
from metaloom.learners.solvers.inner_loop import InnerConfig
from metaloom.learners.solvers.rules import not_read
from metaloom.learners.state import FIXED, RUNNING, declare_place
from metaloom.learners.tensors import Tensors, part

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
        Slot("prediction", SOLVERS, fixed=DEFAULT_SOLVER),
    )
}

for _name in SLOTS:
    declare_place(_name, f"the slot {_name}")

for _module in walk_packages(learners.__path__, "metaloom.learners."):
    if not _module.name.endswith(".build"):
        import_module(_module.name)  # every file registers what it defines: no list is kept by hand


def make_component(slot: Slot, settings: Mapping[str, Any], task: TaskShape, *, trust_code: bool = False) -> Component:
    """Build a slot's component from settings (with ``kind``); raises LearnerError for wrong ones or untrusted code."""
    check_trusted(list(references_in(settings)), trust_code)
    kind = settings.get("kind", slot.fixed)
    component: type[Any] = slot.registry[kind]
    rest = {name: value for name, value in settings.items() if name != "kind"}
    config = make_config(component.Config, rest, f"learner.{slot.name}", kind)
    built: Component = component(config, task) if component.needs_task else component(config)
    return built


def fill_slot(
    slot: Slot,
    settings: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    default: Mapping[str, Any],
    task: TaskShape,
    *,
    trust_code: bool = False,
) -> Component:
    """Fill a slot with one component, or with several from a list of settings; raises LearnerError if it takes one."""
    if isinstance(settings, Mapping):
        return make_component(slot, {**default, **settings}, task, trust_code=trust_code)
    if slot.combined is None:
        kinds = " and ".join(str(one.get("kind", slot.fixed)) for one in settings)
        raise LearnerError(f"learner.{slot.name}: takes one component, got {kinds}; keep one")
    return slot.combined([make_component(slot, {**default, **one}, task) for one in settings])


def build_learner(
    *,
    learner: Mapping[str, Any],
    inner: Mapping[str, Any],
    outer: Mapping[str, Any],
    task: TaskShape,
    start: Tensors | None = None,
    mapper: Mapper = one_by_one,
    trust_code: bool = False,
) -> Learner:
    """Put a learner together from the resolved sections of an experiment.

    Args:
        learner: Slot names to settings; ``method`` is its recipe's name, already merged in.
        inner: The inner section.
        outer: The outer section; ``hypergradient`` and ``strategy`` are read.
        task: The shape of the episodes.
        start: The tensors of a stored learner's network: the parameters, read where ``learner.initialization`` names a
            bundle, with batch norm's statistics under ``running/``; under ``fixed/`` those that nothing moves
            (``Network.fixed``).
        mapper: Evaluates the perturbations of an estimator that has some; by default in this process.
        trust_code: Whether a class that ``architecture.of`` names may be imported, though no plugin vouches for it.

    Raises:
        LearnerError: A name is unknown, a slot is given that the solver does not use, the parts contradict each
            other, or code is named that is not trusted.
    """
    if task.problem:
        return posed_learner(learner, inner, outer, task, SLOTS, mapper)
    settings = {name: value for name, value in learner.items() if name != "method"}
    for name in settings:
        if name not in SLOTS:
            raise LearnerError(f"learner: {unknown('slot', name, SLOTS)}")
    kind = solver_kind(settings)
    solver = cast(Solver, make_component(SLOTS["prediction"], {**settings.get("prediction", {}), "kind": kind}, task))
    solver.check(outer.get("hypergradient", AUTO))
    for name in settings:
        if name not in solver.reads and name != "prediction":  # it would be ignored
            raise LearnerError(f"learner.{name}: {not_read(name, kind, solver.reads)}")
    defaults = {"loss": {"kind": task.task_kind.default_loss}}
    components = {
        name: fill_slot(slot, settings.get(name, {}), defaults.get(name, {}), task, trust_code=trust_code)
        for name, slot in SLOTS.items()
        if name in solver.reads
    }
    if isinstance(network := components.get("architecture"), Network):
        check_text(network)
        if isinstance(update := components.get("update"), UpdateRule):
            components["update"] = update.in_layers(network)
    components = started(components, start)
    config = make_config(InnerConfig, inner, "inner", "the inner loop")
    return solver.learner(Parts(components, config, under_new_names(outer), task, mapper))


def started(components: Mapping[str, Component], start: Tensors | None) -> dict[str, Component]:
    """Return the components, the network among them at its stored start, and what it holds frozen."""
    found, network = dict(components), components.get("architecture")
    initialization = components.get("initialization")
    if not isinstance(network, Network):
        return found
    layers = initialization.config.layers if isinstance(initialization, FROM_BUNDLE) else None
    if fixed := part(start or {}, FIXED, optional=True):
        found["architecture"] = network = network.holding(fixed if layers is None else network.shared(fixed))
    if not isinstance(initialization, FROM_BUNDLE):
        return found
    if start is None:
        raise LearnerError("learner.initialization: the parameters of its bundle were not handed in as start")
    given = {name: value for name, value in start.items() if name.partition("/")[0] not in (FIXED, RUNNING)}
    running, freeze = part(start, RUNNING, optional=True), initialization.config.freeze
    found["architecture"] = network = network.starting_at(given, running, layers=layers, freeze=freeze)
    update = components.get("update")
    if network.held and isinstance(update, UpdateRule):
        found["update"] = update.freezing(sorted(network.held))
    return found


def solver_kind(settings: Mapping[str, Any]) -> str:
    """Return the solver that ``prediction`` names, or that a component needs; raises LearnerError if two are needed."""
    chosen: str = settings.get("prediction", {}).get("kind", DEFAULT_SOLVER)
    for name, given in settings.items():
        members: Sequence[Mapping[str, Any]] = [given] if isinstance(given, Mapping) else given
        for member in members:
            kind = member.get("kind", SLOTS[name].fixed)
            needed = SLOTS[name].registry[kind].solver
            if needed and chosen not in (DEFAULT_SOLVER, needed):
                raise LearnerError(f"learner.prediction: {chosen} does not serve learner.{name}: {kind}; remove one")
            chosen = needed or chosen
    return chosen


def as_recorded(learner: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded learner section, all of whose settings are written out, with what it lacks as it was then."""

    def completed(name: str, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return [completed(name, one) for one in given]
        component = SLOTS[name].registry.get(given.get("kind", SLOTS[name].fixed))
        return given if component is None else {**component.before, **given}

    return {name: completed(name, given) if name in SLOTS else given for name, given in learner.items()}


def only_read(learner: Mapping[str, Any], outer: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return recorded sections as they were meant, without what their solver does not use.

    Version 0.1.0 kept such slots and estimators.
    """
    learner = as_recorded(learner)
    solver = SOLVERS[solver_kind({name: one for name, one in learner.items() if name in SLOTS})]
    reads = {*solver.reads, "prediction"}
    slots = {name: given for name, given in learner.items() if name in reads or name not in SLOTS}
    ignored = set() if solver.takes(outer.get("hypergradient", AUTO)) else {"hypergradient"}
    return slots, {name: given for name, given in outer.items() if name not in ignored}


load_plugins(LEARNERS)  # at the end: a plugin may build on anything here

__all__ = ["METHODS", "SLOTS", "build_learner", "fill_slot", "make_component", "make_config", "relaxed_network"]
