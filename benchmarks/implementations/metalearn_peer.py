"""parallel-metalearn 0.5.6: Razani, https://github.com/Razani-Ali/parallel-metalearn."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from metalearn.algorithms import MAML, PrototypicalNetwork
from metalearn.inner_optimizers import InnerSGD
from metalearn.loss.base import BaseLoss
from metalearn.loss.categorical_accuracy import CategoricalAccuracy
from metalearn.loss.CEloss import CrossEntropy
from metalearn.model_wrappers import MAML_Model, ProtoNet_Model
from metalearn.nn_models.basic_layers.BatchNormalization import BatchNorm
from torch import Tensor, nn

from benchmarks.implementations import Prepare, Run, Step
from benchmarks.networks import Norm, batch_norm
from benchmarks.workloads import Parameters, Workload
from metaloom.learners.episode import Episode, stack_episodes


class SquaredError(BaseLoss):
    """It ships classification losses only; this is the one its documentation asks users to write."""

    def forward(
        self, out_dict: dict[str, Tensor], targets: dict[str, Tensor], model_states: object = None, **options: object
    ) -> tuple[Tensor, Tensor]:
        """Return the mean squared error as loss and as metric."""
        loss = F.mse_loss(out_dict["logits"], targets["labels"])
        return loss, loss.detach()


class Still(torch.optim.Optimizer):
    """An outer optimizer that leaves the parameters where they are, so that every step is the same."""

    def __init__(self, parameters: Iterator[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # it returns no loss
        """Do nothing."""


class Bare(nn.Module):
    """Hide the options that its models hand to every layer from torch's own."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor, **options: object) -> Tensor:
        """Run the network."""
        outputs: Tensor = self.inside(x)
        return outputs


def own_batch_norm(channels: int) -> nn.Module:
    """Return its own batch norm, made of primitive operations, which vmap differentiates rightly."""
    layer: nn.Module = BatchNorm(channels, track_running_stats=False)
    return layer


def prepare_with(backend: str, norm: Norm) -> Prepare:
    """Return the preparation for a backend of its (``vmap`` or ``sequential``) and a batch norm."""

    def prepare(workload: Workload, parameters: Parameters, episodes: Sequence[Episode]) -> Run | None:
        if norm is own_batch_norm and not workload.classification:
            return None  # no batch norm there
        like = next(iter(parameters.values()))
        network = workload.network(norm).to(like)
        network.load_state_dict(parameters)
        loss = (CrossEntropy(CategoricalAccuracy()) if workload.classification else SquaredError()).to(like)
        shared = {"device": like.device, "backend": backend, "chunk_size": len(episodes)}
        if workload.method == "prototypical":
            ways = int(episodes[0].support_y.max()) + 1
            model = ProtoNet_Model(Bare(network), max_classes=ways, latent_dim=64)
            algorithm = PrototypicalNetwork(model=model, optimizer=Still(model.parameters()), loss_fn=loss, **shared)
        else:
            model = MAML_Model(backbone=Bare(network), head=Bare(nn.Identity()))
            inner = InnerSGD(
                model.get_fast_weights(),
                first_order=workload.method == "first_order_maml",
                inner_lr=workload.rate,
                learn_lr=False,
            )
            algorithm = MAML(
                model=model,
                optimizer=Still(model.parameters()),
                inner_optimizer=inner,
                support_loss_fn=loss,
                inner_steps=workload.steps,
                **shared,
            )
        batch = stack_episodes(episodes)
        tasks = repeat((batch.support_x, {"labels": batch.support_y}, batch.query_x, {"labels": batch.query_y}))

        def run() -> Step:
            value, _ = algorithm.step(tasks)
            return Step(value, {n: p.grad for n, p in network.named_parameters() if p.grad is not None})

        return run

    return prepare


prepare_sequential = prepare_with("sequential", batch_norm)
prepare_vmap = prepare_with("vmap", batch_norm)
prepare_vmap_own_norm = prepare_with("vmap", own_batch_norm)
