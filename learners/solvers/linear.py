"""The solver of every gradient-based method: the network's own head, moved by inner steps, and its estimator."""

from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from metaloom.learners.episode import TaskShape
from metaloom.learners.hypergradients.auto import AUTO, Facts, make_estimator
from metaloom.learners.hypergradients.problem import Estimator
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.solvers.base import SOLVERS, Parts, Solver
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.solvers.rules import check_estimator, check_slots
from metaloom.learners.solvers.slots import Slots
from metaloom.learners.tensors import Tensors, as_leaves

# How many examples a step sees is known only with its episode: a 5-way 5-shot support set has 25, a batch 50 to 100.
EXAMPLES = 50
PROBES = 2  # batch norm needs more than one


@SOLVERS.register("linear")
class LinearHead(Solver):
    """The network's own last layer, adapted by inner steps."""

    needs_steps = True

    def learner(self, parts: Parts) -> GradientLearner:
        """Choose the estimator, and put the learner together."""
        slots = Slots(**parts.components)  # type: ignore[arg-type]
        check_slots(slots, parts)
        settings = parts.outer.get("hypergradient", AUTO)
        estimator, reason = make_estimator(settings, partial(facts_of, slots, parts.task))
        check_estimator(estimator, slots, parts.inner)
        estimator.mapper = parts.mapper
        return self.put_together(slots, parts, estimator, reason)

    def put_together(self, slots: Slots, parts: Parts, estimator: Estimator, reason: str) -> GradientLearner:
        """Return the learner of parts that fit together; ``reason`` is why ``auto`` chose the estimator."""
        strategy = parts.outer.get("strategy", "auto")
        return GradientLearner(slots, parts.inner, parts.task, estimator, strategy, reason=reason)


def facts_of(slots: Slots, task: TaskShape) -> Facts:
    """Count what is learned, and the bytes of theta and of one forward pass."""
    generator = torch.Generator().manual_seed(0)  # for shapes alone
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
    """Return the bytes that the graph of ``PROBES`` examples keeps beyond theta itself."""
    leaves = as_leaves(theta)
    own = {value.untyped_storage().data_ptr() for value in leaves.values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        # the outputs hold the graph, and are released only after it is counted
        outputs = slots.architecture.outputs(leaves, torch.zeros(PROBES, *task.inputs), Normalization(fused=True), phi)
    del outputs
    return sum(kept.values())
