"""The episodes of a trial: those of an outer step, and those that batch norm's statistics are measured on."""

from collections.abc import Iterator

from metaloom.learners.base import Learner
from metaloom.learners.episode import Episode
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.activity import doing
from metaloom.workers.data.base import SampledEpisode, TaskSource
from metaloom.workers.device import Device
from metaloom.workers.records import names

MEASURED_EPISODES = 32  # meta-train episodes that stand for the split in batch norm's statistics


def draw(source: TaskSource, first: int, count: int) -> list[SampledEpisode]:
    """Return meta-train episodes by their numbers; a split of so many episodes begins again after its last one."""
    available = source.available(names.TRAIN)
    numbers = range(first, first + count)
    return [source.episode(names.TRAIN, n if available is None else n % available) for n in numbers]


def measured(
    learner: Learner, phi: Tensors, state: LearnerState, source: TaskSource, device: Device
) -> tuple[LearnerState, tuple[str, ...]]:
    """Return the state with batch norm's running statistics, and a note where a given start lacked them.

    They are those of the support and query examples of the first meta-train episodes.
    """

    def episodes() -> Iterator[Episode]:
        for number in range(MEASURED_EPISODES):
            yield draw(source, number, 1)[0].episode.to(device.torch, device.dtype)

    if learner.batch_norm != "frozen":
        return state, ()
    placed = state.mapped(device.move)
    with device.precision(), doing("measuring batch norm's statistics"):
        after = learner.measured(phi, placed, episodes())
    if after is placed:
        return state, ()
    return after, (
        "batch norm: the bundle of learner.initialization lacks running statistics that are read here; the first "
        f"{MEASURED_EPISODES} meta-train episodes give them (a bundle of inner.batch_norm: frozen has its own)",
    )
