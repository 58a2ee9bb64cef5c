"""What is timed: a network, tasks, and a method. W1 to W3 learn the start; W4 to W6 stand in ``bilevel.py``."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from benchmarks.bilevel import BILEVEL, Bilevel
from benchmarks.metric_networks import Comparing, FullContext, Matching, Neighbours, Pairs
from benchmarks.networks import Conv4, Norm, SineMLP, batch_norm
from benchmarks.relational_networks import Graph, Relation, Relational, Snail
from metaloom.learners.episode import Episode, Support

Parameters = dict[str, Tensor]
METRIC: dict[str, tuple[str, Callable[[nn.Module], Comparing]]] = {  # what each is called, and its network
    "matching": ("Matching networks", Matching),
    "matching_fce": ("Matching networks with full context", FullContext),
    "siamese": ("Siamese networks", Pairs),
    "knn": ("Neighbourhood components", Neighbours),
}
RELATIONAL: dict[str, tuple[str, Callable[[], Relational]]] = {  # likewise
    "relation": ("Relation networks", Relation),
    "graph": ("Graph networks", Graph),
    "snail": ("SNAIL", Snail),
}


@dataclass(frozen=True)
class Workload:
    """One line of the table.

    Attributes:
        name: What ``--workloads`` calls it.
        title: What it is.
        method: ``maml``, ``first_order_maml``, ``prototypical``, or one of ``METRIC`` or ``RELATIONAL``.
        network: Builds the module, given what makes its batch norms.
        episodes: Draws the tasks.
        steps: Inner steps.
        rate: Inner rate.
        target: Times faster than the fastest peer that the engine has to be.
    """

    name: str
    title: str
    method: str
    network: Callable[[Norm], nn.Module]
    episodes: Callable[[Generator], list[Episode]]
    steps: int
    rate: float
    target: float

    @property
    def metric(self) -> bool:
        """Whether it is a metric learner beside ProtoNet, whose network brings its own loss."""
        return self.method in METRIC

    @property
    def relational(self) -> bool:
        """Whether its network reads a whole episode."""
        return self.method in RELATIONAL

    @property
    def checked_in(self) -> torch.dtype:
        """The precision in which gradients are compared with float64."""
        # in float32 some |f(x) - f(x')| near 0 has the other slope: 0.4% of the gradient, for all alike
        return torch.float64 if self.method == "siamese" or self.relational else torch.float32

    @property
    def classification(self) -> bool:
        """Whether the loss is cross entropy; the mean squared error otherwise."""
        return not self.name.startswith("W2")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss, inner and outer."""
        return F.cross_entropy(outputs, targets) if self.classification else F.mse_loss(outputs, targets)

    def start(self) -> Parameters:
        """Return the parameters every implementation starts from, in float32 on the CPU."""
        torch.manual_seed(0)
        return {name: value.detach().clone() for name, value in self.network(batch_norm).named_parameters()}


def image_episode(generator: Generator, *, ways: int, shots: int, queries: int) -> Episode:
    """Draw a task whose classes are blurred random images, and whose examples are noisy copies of them."""
    classes = F.interpolate(torch.rand(ways, 1, 7, 7, generator=generator), size=28, mode="bilinear")

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(ways).repeat_interleave(count)
        return (classes[labels] + 0.3 * torch.rand(ways * count, 1, 28, 28, generator=generator)).clamp(0, 1), labels

    return Episode(Support(*draw(shots)), *draw(queries))


def sine_episode(generator: Generator, *, shots: int = 10) -> Episode:
    """Draw Finn's task: amplitude in [0.1, 5], phase in [0, pi], x in [-5, 5]."""
    amplitude, phase = 0.1 + 4.9 * torch.rand((), generator=generator), torch.pi * torch.rand((), generator=generator)
    x = 10 * torch.rand(2 * shots, 1, generator=generator) - 5
    y = amplitude * torch.sin(x - phase)
    return Episode(Support(x[:shots], y[:shots]), x[shots:], y[shots:])


def _images(tasks: int, *, ways: int, shots: int) -> Callable[[Generator], list[Episode]]:
    return lambda generator: [image_episode(generator, ways=ways, shots=shots, queries=15) for _ in range(tasks)]


def _conv4_maml(name: str, tasks: int, *, method: str = "maml", target: float) -> Workload:
    order = "first-order " if method == "first_order_maml" else ""
    title = f"Conv-4 {order}MAML, 5-way 1-shot, 15 queries, 28x28, 1 step, {tasks} tasks"
    return Workload(name, title, method, lambda norm: Conv4(5, norm), _images(tasks, ways=5, shots=1), 1, 0.4, target)


def _sine_maml(name: str, steps: int) -> Workload:
    title = f"Sine MLP 40-40 MAML, K=10, 25 tasks, {steps} step{'s' if steps > 1 else ''}"
    draw = lambda generator: [sine_episode(generator) for _ in range(25)]  # noqa: E731
    return Workload(name, title, "maml", lambda norm: SineMLP(), draw, steps, 0.01, 2.0)


def _metric(method: str) -> Workload:
    name, network = METRIC[method]
    title = f"{name} on Conv-4, 20-way 5-shot, 15 queries, 28x28"
    build = lambda norm: network(Conv4(None, norm))  # noqa: E731
    draw = _images(1, ways=20, shots=5)
    return Workload(f"W3-{method.replace('_', '-')}", title, method, build, draw, 0, 0.0, 2.0)


def _relational(method: str) -> Workload:
    name, network = RELATIONAL[method]
    title = f"{name} on Conv-4, 5-way 1-shot, 15 queries, 28x28"
    return Workload(f"W3-{method}", title, method, lambda norm: network(), _images(1, ways=5, shots=1), 0, 0.0, 2.0)


RELATIONAL_WORKLOADS: list[Workload | Bilevel] = [_relational(method) for method in RELATIONAL]
METRIC_WORKLOADS: list[Workload | Bilevel] = [_metric(method) for method in METRIC]
WORKLOADS: dict[str, Workload | Bilevel] = {
    workload.name: workload
    for workload in (
        _conv4_maml("W1-8", 8, target=1.4),
        _conv4_maml("W1-32", 32, target=1.4),
        _conv4_maml("W1-8-first-order", 8, method="first_order_maml", target=1.6),
        _conv4_maml("W1-32-first-order", 32, method="first_order_maml", target=1.6),
        _sine_maml("W2-1", 1),
        _sine_maml("W2-5", 5),
        Workload(
            "W3",
            "ProtoNet on Conv-4, 20-way 5-shot, 15 queries, 28x28",
            "prototypical",
            lambda norm: Conv4(None, norm),
            _images(1, ways=20, shots=5),
            0,
            0.0,
            1.3,
        ),
        *METRIC_WORKLOADS,
        *RELATIONAL_WORKLOADS,
        *BILEVEL,
    )
}
