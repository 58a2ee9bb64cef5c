"""MAML++'s weights of the outer loss after each inner step."""

from metaloom.learners.solvers.inner_loop import InnerConfig

MULTI_STEP_FLOOR = 0.03  # of 1 / steps: MAML++'s smallest weight of an early step


def multi_step_weights(steps: int, outer_step: int, horizon: int) -> tuple[float, ...] | None:
    """Return MAML++'s weight of the outer loss after each inner step; None once they have faded.

    Antoniou et al., 2019, section 4: 1 / T each at first; every step but the last fades linearly to
    0.03 / T over ``horizon`` outer steps, and the last takes what they lose.
    """
    if horizon == 0 or steps <= 1:
        return None
    faded = max(1 - outer_step / horizon, MULTI_STEP_FLOOR) / steps
    return (faded,) * (steps - 1) + (1 - faded * (steps - 1),)


def step_weights(inner: InnerConfig, steps: int, outer_step: int) -> tuple[float, ...] | None:
    """Return the weight of the outer loss after each inner step; None for the last alone."""
    if inner.trajectory_loss and steps > 0:
        return (1.0,) * steps
    return multi_step_weights(steps, outer_step, inner.multi_step_loss)
