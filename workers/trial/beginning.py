"""Where a trial begins, and under which name it shows its progress: in a search, or as a stage before its trials."""

from dataclasses import dataclass
from pathlib import Path

from metaloom.learners.tensors import Tensors
from metaloom.workers.checkpoint import different_leaves
from metaloom.workers.errors import CheckpointError
from metaloom.workers.heartbeat import Heartbeat
from metaloom.workers.records.stages import StageRecord


@dataclass(frozen=True)
class Beginning:
    """What precedes a trial.

    Attributes:
        network: That it starts from, of the stages before it; None leaves it to ``learner.initialization``.
        stages: The records of these, for its first report.
        heartbeat: That shows its progress; None: the trial's own.
        label: Its name in the progress; empty: its number.
    """

    network: Tensors | None = None
    stages: tuple[StageRecord, ...] = ()
    heartbeat: Heartbeat | None = None
    label: str = ""


FIRST = Beginning()


def check_leaves(directory: Path, phi: Tensors, stored: Tensors) -> None:
    """Refuse a checkpoint whose phi is not of the learner's shapes; raises CheckpointError."""
    if odd := different_leaves(phi, stored):
        raise CheckpointError(
            f"{directory}: what is stored is of another learner: {', '.join(odd[:5])} differ in shape"
        )
