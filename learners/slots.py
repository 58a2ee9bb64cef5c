"""The slots of a learner: which registry fills each, and how a component is built from its settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaloom.learners.component import Component, Slot
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import make_config
from metaloom.learners.knowledge.augmentation import AUGMENTATIONS
from metaloom.learners.knowledge.composition import ChainOfAugmentations, ProductOfWeights, SumOfLosses
from metaloom.learners.knowledge.distilled_data import DATA
from metaloom.learners.knowledge.initialization import INITIALIZATIONS
from metaloom.learners.knowledge.loss import LOSSES
from metaloom.learners.knowledge.sample_weights import WEIGHTINGS
from metaloom.learners.knowledge.update_rules import UPDATE_RULES
from metaloom.learners.networks.base import ARCHITECTURES
from metaloom.learners.networks.reference import check_trusted, references_in
from metaloom.learners.solvers.base import DEFAULT_SOLVER, SOLVERS
from metaloom.learners.state import declare_place

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


def make_component(slot: Slot, settings: Mapping[str, Any], task: TaskShape, *, trust_code: bool = False) -> Component:
    """Build the component that fills a slot from its settings, ``kind`` among them.

    Raises:
        LearnerError: A setting is wrong, or the settings name code to import that is not trusted.
    """
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
    """Build what fills a slot: one component, or several together from a list of settings.

    Raises:
        LearnerError: The slot takes one component alone.
    """
    if isinstance(settings, Mapping):
        return make_component(slot, {**default, **settings}, task, trust_code=trust_code)
    if slot.combined is None:
        kinds = " and ".join(str(one.get("kind", slot.fixed)) for one in settings)
        raise LearnerError(f"learner.{slot.name}: takes one component, got {kinds}; keep one")
    return slot.combined([make_component(slot, {**default, **one}, task) for one in settings])
