"""What an inner loop costs, before it is run: for the choice of the estimator."""

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from metaloom.learners.episode import TaskShape
from metaloom.learners.hypergradients.auto import Facts
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.solvers.inner_loop import Slots
from metaloom.learners.tensors import Tensors

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
