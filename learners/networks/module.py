"""Any ``torch.nn.Module`` as a network: called by ``torch.func.functional_call`` with theta in its parameters' place.

theta holds the parameters that require a gradient under the names of ``named_parameters`` (a tied weight once); those
of the head begin with ``head.``. Parameters that require none, and buffers, are as the class makes them under a fixed
seed, or as a checkpoint or bundle holds them; every call has copies of the buffers, so that nothing moves from one task
to the next. Chance, such as dropout's, is drawn once per episode as a seed for each inner step, so that a step that is
computed again is the same. What is evaluated runs in eval mode; batch norm follows ``inner.batch_norm`` in both modes.
"""

import inspect
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.networks import prepared
from metaloom.learners.networks.base import ARCHITECTURES, HEAD, Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.prepared import WHERE
from metaloom.learners.networks.probes import check_effects, why_not
from metaloom.learners.networks.reference import MODULE, imported, split_reference
from metaloom.learners.tensors import Tensors, as_leaves

SEED, TRAINING = "seed", "training"  # the entries of an episode's noise
BODY = "body."  # before a name of the body that would otherwise begin as the head's do
FIXED_SEED = 0  # of what is not learned: buffers, and parameters that require no gradient
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class ModuleConfig:
    """A class of ``nn.Module``, and what it is called with.

    Attributes:
        of: Import path ``package.module:Name`` of a class, of a function that makes a module, or of a module itself.
        settings: Keyword arguments of the class or function. If it has an argument ``task``, that is the ``TaskShape``,
            with the shape of an example and the number of outputs.
        head: Name of the submodule that is the head (``update.adapt: head``); None takes the last linear layer.
    """

    of: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    head: str | None = None

    def __post_init__(self) -> None:
        split_reference(self.of)


@ARCHITECTURES.register(MODULE)
class ModuleNetwork(Network):
    """A user's own module; ``probes.py`` checks that every parameter has its gradient."""

    config: ModuleConfig
    takes_text = True

    def __init__(self, config: Any, task: TaskShape) -> None:
        super().__init__(config, task)
        self.module = prepared.prepared(self.build(FIXED_SEED))
        layers = dict(self.module.named_modules())
        self.head = find_head(layers, self.config.head)
        own = {} if self.head is None else {id(one): HEAD + name for name, one in layers[self.head].named_parameters()}
        # by identity: the head's weight may be tied to the embedding, whose name it then has
        self.names = {own.get(id(one)) or _of_body(name): name for name, one in _learned(self.module)}
        if not self.names:
            raise LearnerError(f"{WHERE}: {self.config.of} has no parameter that requires a gradient: nothing can move")
        self._norms = {name: layer for name, layer in layers.items() if isinstance(layer, prepared.BatchNorm)}
        self._buffers = {name: one.detach() for name, one in self.module.named_buffers()}
        fixed = {name: one.detach() for name, one in self.module.named_parameters() if not one.requires_grad}
        self._fixed: Tensors = fixed | self._buffers
        self._places = prepared.places(self.module)
        self._leftovers: list[tuple[nn.Module, str]] = []
        self._reasons: dict[str, str] = {}  # by strategy, why it cannot run the module
        self.stochastic = True  # until the probe has run
        self._bind()

    def build(self, seed: int) -> nn.Module:
        """Make the module from this seed; raises LearnerError if the class does not take the settings."""
        made = imported(self.config.of)
        with prepared.seeded(seed, torch.device("cpu")):
            if not isinstance(made, nn.Module):
                takes_task = callable(made) and "task" in inspect.signature(made).parameters
                given = {**self.config.settings, **({"task": self.task} if takes_task else {})}
                try:
                    made = made(**given)
                except Exception as error:  # a user's own code may raise anything
                    raise LearnerError(f"{WHERE}: {self.config.of}: {type(error).__name__}: {error}") from error
        if not isinstance(made, nn.Module):
            raise LearnerError(f"{WHERE}.of: {self.config.of} made a {type(made).__name__}, not an nn.Module")
        return made

    def _bind(self) -> None:
        """Run the module once, and check that its outputs fit the task and that every parameter has its effect."""
        theta = {key: dict(_learned(self.module))[name].detach() for key, name in self.names.items()}
        found = self._run(as_leaves(theta), torch.zeros(2, *self.task.inputs), Normalization(), {})
        if not isinstance(found, Tensor) or found.shape != (2, self.task.outputs):
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise LearnerError(
                f"{WHERE}: {self.config.of} maps 2 examples of shape {self.task.inputs} to {given}; the task needs a "
                f"tensor of shape (2, {self.task.outputs})"
            )
        self._leftovers = prepared.graph_tensors(self.module)
        prepared.detach_graph(self._leftovers)
        self.stochastic = check_effects(self, theta, self.names)

    def layers(self) -> list[tuple[str, ...]]:
        """Return each submodule that has parameters of its own, in the order of their names."""
        names = [name for name in self.names if not name.startswith(HEAD)]
        return [(name,) for name in dict.fromkeys(name.rpartition(".")[0] or name for name in names)]

    def norm_layers(self) -> list[str]:
        return [_of_body(name) for name in self._norms]

    @property
    def random(self) -> bool:
        return self.stochastic

    def parameters(self, generator: Generator) -> Tensors:
        seed = int(torch.randint(MAX_SEED, (), generator=generator, device=generator.device))
        drawn = dict(_learned(self.build(seed)))
        return {key: drawn[name].detach().clone() for key, name in self.names.items()}

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        """Return a seed for each pass, and in training a flag, which sets train mode: [steps + 1] each."""
        seeds = torch.randint(MAX_SEED, (steps + 1,), generator=generator, device=generator.device)
        return {SEED: seeds, **({TRAINING: torch.ones(steps + 1)} if training else {})}

    @property
    def fixed(self) -> Tensors:
        return self._fixed

    def holding(self, fixed: Tensors) -> Self:
        other = copy(super().holding(fixed))
        other._fixed = dict(fixed)
        return other

    def feature_shape(self) -> tuple[int, ...]:
        theta = self.parameters(Generator())
        with torch.no_grad():
            return tuple(self.features(theta, torch.zeros(2, *self.task.inputs), Normalization(), {}).shape[1:])

    def check_head(self, reason: str) -> None:
        if self.head is None:
            able = ", ".join(able_heads(dict(self.module.named_modules())))
            raise LearnerError(
                f"{WHERE}.head: {reason}, but {self.config.of} has no linear layer and no head is given; name the "
                f"submodule that is its head; allowed: {able}"
            )

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        """Return what reaches the head, flattened: [n, features]."""
        self.check_head("features are what reaches the head")
        reached: list[Tensor] = []
        layer = self.module.get_submodule(str(self.head))
        hook = layer.register_forward_pre_hook(lambda _, given: reached.append(given[0]))
        try:
            self._run(theta, x, norm, {})
        finally:
            hook.remove()
        return reached[-1].flatten(1)

    def outputs(
        self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors, noise: Tensors | None = None
    ) -> Tensor:
        outputs: Tensor = self._run(theta, x, norm, noise or {})
        return outputs

    def _run(self, theta: Tensors, x: Tensor, norm: Normalization, noise: Tensors) -> Any:
        """Call the module; where theta lacks a parameter, such as an embedding's head, the module's own is used."""
        for extra in theta.keys() - self.names.keys():  # functional_call would ignore them
            raise LearnerError(f"{WHERE}: {unknown('parameter', extra, self.names)}")
        given = {name: _like(one, x) for name, one in self._fixed.items()}
        given |= {name: given[name].clone() for name in self._buffers}  # which a call may write into
        if missing := self.names.keys() - theta.keys():
            own = dict(_learned(self.module))
            given |= {self.names[key]: _like(own[self.names[key]].detach(), x) for key in missing}
        given |= {self.names[key]: value for key, value in theta.items()}
        training = TRAINING in noise
        if self.module.training != training:
            self.module.train(training)
        for layer in self._norms.values():
            layer.enter(norm)
        seed = int(noise[SEED]) if SEED in noise else FIXED_SEED if self.stochastic else None
        with prepared.differentiable_attention(), prepared.seeded(seed, x.device):
            everywhere = {place: value for name, value in given.items() for place in self._places[name]}
            outputs = functional_call(self.module, everywhere, (x,), tie_weights=False)
        prepared.detach_graph(self._leftovers)
        return outputs

    def refuses(self, strategy: str) -> str:
        if strategy not in self._reasons:
            self._reasons[strategy] = why_not(self, strategy)
        return self._reasons[strategy]


def _learned(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, one) for name, one in module.named_parameters() if one.requires_grad]


def _like(value: Tensor, x: Tensor) -> Tensor:
    return value.to(x.device, x.dtype if value.is_floating_point() else None)


def _of_body(name: str) -> str:
    return BODY + name if name.startswith(HEAD) else name


def able_heads(layers: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of the submodules that have something to learn."""
    return [name for name, one in layers.items() if name and any(p.requires_grad for p in one.parameters())]


def find_head(layers: Mapping[str, nn.Module], wanted: str | None) -> str | None:
    """Return the name of the head: ``wanted``, or the last linear layer; None if there is none.

    Raises LearnerError, which names the nearest, if no submodule of that name has something to learn.
    """
    able = able_heads(layers)
    if wanted is not None and wanted not in able:
        raise LearnerError(f"{WHERE}.head: {unknown('submodule with parameters', wanted, able)}")
    linear = [name for name in able if isinstance(layers[name], nn.Linear)]
    return wanted if wanted is not None else linear[-1] if linear else None
