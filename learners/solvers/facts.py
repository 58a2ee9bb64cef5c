"""What an inner loop costs, before it is run, and the estimator that is chosen by it or named."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import make_config
from metaloom.learners.hypergradients.auto import AUTO, AutoConfig, Facts, choose
from metaloom.learners.hypergradients.problem import ESTIMATORS, Estimator
from metaloom.learners.hypergradients.stationarity import drifts, needs_stationary
from metaloom.learners.knowledge.update_rules import UPDATE_RULES, UpdateRule
from metaloom.learners.networks.base import HEAD
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.solvers.inner_loop import Slots
from metaloom.learners.solvers.rules import no_signal
from metaloom.learners.tensors import InnerState, Tensors

# How many examples a step sees is known only with its episode: a 5-way 5-shot support set has 25, a batch 50 to 100.
EXAMPLES = 50
PROBES = 2  # batch norm needs more than one


def facts_of(slots: Slots, task: TaskShape) -> Facts:
    """Count what is learned, and weigh theta and one forward pass."""
    generator = torch.Generator().manual_seed(0)  # for shapes alone: what is drawn here is thrown away
    theta = slots.architecture.parameters(generator)
    numbers = {
        name: sum(value.numel() for value in component.init(theta, generator).values())
        for name, component in slots.items()
    }
    phi = slots.architecture.init(theta, generator)
    state = theta | slots.update.begin(theta)
    return Facts(
        steps=slots.update.config.steps,
        numbers=numbers,
        theta_bytes=sum(value.numel() * value.element_size() for value in state.values()),
        pass_bytes=_pass_bytes(slots, theta, phi, task) * EXAMPLES // PROBES,
    )


def _pass_bytes(slots: Slots, theta: Tensors, phi: Tensors, task: TaskShape) -> int:
    """Return what the graph of ``PROBES`` examples keeps beyond theta itself."""
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    own = {value.untyped_storage().data_ptr() for value in leaves.values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        norm = Normalization(fused=True)
        outputs = slots.architecture.outputs(leaves, torch.zeros(PROBES, *task.inputs), norm, phi)
    del outputs
    return sum(kept.values())


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
        kind, reason = choose(facts_of(slots, task), make_config(AutoConfig, rest, "outer.hypergradient", kind))
        return Chosen(kind, ESTIMATORS[kind](ESTIMATORS[kind].Config()), reason)
    estimator = ESTIMATORS[kind]
    config = make_config(estimator.Config, rest, "outer.hypergradient", kind)
    learned = [(name, f"learner.{name}") for name, component in slots.items() if component.has_knowledge]
    if wrong := no_signal(kind, learned, rest):
        raise LearnerError(f"outer.hypergradient: {wrong}")
    if estimator.stationary and _drifts(slots.update):
        raise LearnerError(needs_stationary(kind, f"learner.update ({UPDATE_RULES.name_of(type(slots.update))})"))
    return Chosen(kind, estimator(config), "")


def _drifts(rule: UpdateRule) -> bool:
    """Whether a rule, nothing of which is learned, moves theta where its penalty and the gradient cancel."""
    theta = {f"{HEAD}probe": torch.linspace(-1, 1, 4, dtype=torch.float64)}
    buffers = rule.begin(theta) | ({"loss": torch.zeros((), dtype=torch.float64)} if rule.reads_loss else {})
    penalty = {name: torch.zeros_like(value) for name, value in theta.items()} | rule.regularization({}, theta, 0)
    return drifts(lambda state, gradient: rule.step({}, state, gradient, 0), InnerState(theta, buffers), penalty)
