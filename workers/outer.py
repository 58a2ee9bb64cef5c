"""The outer loop's optimizers, as pure functions: every bit of their state is a tensor in a dictionary.

What ``torch.optim`` keeps in objects is kept here as ``name -> tensor``, so that a
checkpoint holds it without pickling, and a resumed trial goes on bit for bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from metaloom.learners.errors import BadInput, unknown
from metaloom.learners.tensors import Tensors
from metaloom.workers.schedules import SCHEDULES

PRECISIONS = ("float32", "float64", "bfloat16")
ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


@dataclass(frozen=True)
class OuterConfig:
    """What a trial itself reads of the resolved outer section; the rest is the learner's.

    Attributes:
        steps: Outer steps.
        tasks: Episodes per outer step.
        optimizer: ``adam`` or ``sgd``.
        rate: The optimizer's rate, before the schedule.
        schedule: ``constant``, ``cosine`` or ``linear``.
        clip: Largest global norm of the hypergradient; None does not clip.
        weight_decay: Times phi, added to the clipped hypergradient (L2, as ``torch.optim.Adam``).
        validate_every: Outer steps from one validation to the next.
        validation_episodes: Meta-validation episodes, the same every time.
        test_episodes: Episodes of the final test.
        patience: Validations without improvement before stopping early; None never stops early.
        precision: ``float32``, ``float64``, or ``bfloat16`` (mixed, GPU only).
        retrain_steps: Inner steps after them, from scratch, of what relaxed cells were made discrete to.
        keep: ``best`` or ``last`` meta-knowledge; None is ``best`` with patience, else ``last``.
    """

    steps: int = 1000
    tasks: int = 4
    optimizer: str = "adam"
    rate: float = 0.001
    schedule: str = "constant"
    clip: float | None = None
    weight_decay: float = 0.0
    validate_every: int = 100
    validation_episodes: int = 100
    test_episodes: int = 600
    patience: int | None = None
    precision: str = "float32"
    retrain_steps: int = 0
    keep: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("keep", ("best", "last", None)),
        ):
            if getattr(self, name) not in allowed:
                known = [one for one in allowed if one is not None]
                raise BadInput(f"outer.{name}: {unknown(name, getattr(self, name), known)}")
        least = {
            "steps": 0,
            "retrain_steps": 0,
            "tasks": 1,
            "validate_every": 1,
            "validation_episodes": 2,
            "test_episodes": 2,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise BadInput(f"outer.{name} must be at least {low}, got {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise BadInput(f"outer.weight_decay must be at least 0, got {self.weight_decay}")
        for name in ("rate", "clip", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadInput(f"outer.{name} must be above 0, got {value}")

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "OuterConfig":
        """Read the resolved outer section, passing over the fields that are the learner's."""
        return cls(**{one.name: section[one.name] for one in fields(cls) if one.name in section})

    @property
    def keeps_best(self) -> bool:
        """Whether the trial ends with the meta-knowledge that validated best, not the last one."""
        return self.keep == "best" or (self.keep is None and self.patience is not None)


def start_sgd(phi: Tensors) -> Tensors:
    """Gradient descent has no state."""
    return {}


def sgd(phi: Tensors, gradient: Tensors, state: Tensors, rate: float) -> tuple[Tensors, Tensors]:
    """Return phi - rate * gradient, and the empty state."""
    if not phi:
        return {}, state
    moved = torch._foreach_add(list(phi.values()), _along(phi, gradient), alpha=-rate)
    return dict(zip(phi, moved, strict=True)), state


def start_adam(phi: Tensors) -> Tensors:
    """Return both moments at zero, and the count of steps."""
    first = {f"first/{name}": torch.zeros_like(leaf) for name, leaf in phi.items()}
    second = {f"second/{name}": torch.zeros_like(leaf) for name, leaf in phi.items()}
    return {"count": torch.zeros((), dtype=torch.int64), **first, **second}


def adam(phi: Tensors, gradient: Tensors, state: Tensors, rate: float) -> tuple[Tensors, Tensors]:
    """Take one step of Adam (Kingma and Ba, 2014, https://arxiv.org/abs/1412.6980, algorithm 1).

    The order of operations is that of ``torch.optim.Adam``; nothing is changed in place.
    """
    if not phi:
        return {}, state
    beta1, beta2 = ADAM_BETAS
    count = state["count"] + 1
    leaves, slopes = list(phi.values()), _along(phi, gradient)
    first = torch._foreach_lerp([state[f"first/{name}"] for name in phi], slopes, 1 - beta1)
    second = torch._foreach_mul([state[f"second/{name}"] for name in phi], beta2)
    second = torch._foreach_addcmul(second, slopes, slopes, 1 - beta2)
    steps = int(count)
    scale = torch._foreach_div(torch._foreach_sqrt(second), (1 - beta2**steps) ** 0.5)
    scale = torch._foreach_add(scale, ADAM_EPSILON)
    moved = torch._foreach_addcdiv(leaves, first, scale, -rate / (1 - beta1**steps))
    after = {f"first/{name}": one for name, one in zip(phi, first, strict=True)}
    after |= {f"second/{name}": one for name, one in zip(phi, second, strict=True)}
    return dict(zip(phi, moved, strict=True)), {"count": count, **after}


Start = Callable[[Tensors], Tensors]
Update = Callable[[Tensors, Tensors, Tensors, float], tuple[Tensors, Tensors]]
OPTIMIZERS: dict[str, tuple[Start, Update]] = {"adam": (start_adam, adam), "sgd": (start_sgd, sgd)}


def global_norm(gradient: Tensors) -> float:
    """Return the Euclidean norm over all leaves together; 0 if there are none."""
    if not gradient:
        return 0.0
    norms = torch._foreach_norm(list(gradient.values()), 2, dtype=torch.float64)
    return float(torch.linalg.vector_norm(torch.stack(list(norms))))


def clipped(gradient: Tensors, norm: float, limit: float | None) -> Tensors:
    """Scale the gradient down to the global norm ``limit``, if it is longer than that."""
    if limit is None or norm <= limit:
        return gradient
    scaled = torch._foreach_mul(list(gradient.values()), limit / norm)
    return dict(zip(gradient, scaled, strict=True))


def decayed(gradient: Tensors, phi: Tensors, weight_decay: float) -> Tensors:
    """Add the gradient of ``weight_decay`` / 2 |phi|^2."""
    if weight_decay == 0:
        return gradient
    return {name: slope + weight_decay * phi[name] for name, slope in gradient.items()}


def first_non_finite(tensors: Tensors) -> str | None:
    """Return the name of the first leaf that holds a NaN or an infinity."""
    return next((name for name, leaf in tensors.items() if not bool(torch.isfinite(leaf).all())), None)


def _along(phi: Tensors, gradient: Tensors) -> list[Tensor]:
    """Return the gradient's leaves in phi's order."""
    if phi.keys() != gradient.keys():
        odd = sorted(phi.keys() ^ gradient.keys())
        raise BadInput(f"the hypergradient does not have the leaves of phi: {', '.join(odd)}")
    return [gradient[name] for name in phi]
