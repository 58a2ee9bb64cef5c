"""How the outer rate changes over a trial: the fraction of it that is used at a step."""

import math
from collections.abc import Callable


def constant(step: int, steps: int) -> float:
    """Return 1 at every step."""
    return 1.0


def cosine(step: int, steps: int) -> float:
    """Return half a cosine from 1 at step 0 to 0 at ``steps`` (https://arxiv.org/abs/1608.03983, eq. 5)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(step / steps, 1.0)))


def linear(step: int, steps: int) -> float:
    """Return a straight line from 1 at step 0 to 0 at ``steps``, as Reptile anneals its outer rate."""
    return max(0.0, 1.0 - step / steps)


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
}
