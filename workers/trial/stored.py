"""A trial's state as the groups of tensors that its checkpoints hold, and back."""

from collections.abc import Mapping

from metaloom.learners.tensors import Tensors
from metaloom.workers.checkpoint import Knowledge, settled
from metaloom.workers.device import Device
from metaloom.workers.trial.loop import TrialState

BEST = "best_"  # before the groups of the meta-knowledge that has validated best
OPTIMIZER = "optimizer"


def groups_of(state: TrialState, best: Knowledge | None) -> dict[str, Tensors]:
    """Return the groups of a state, and of the meta-knowledge that a trial keeps."""
    kept = {} if best is None else {f"{BEST}{group}": tensors for group, tensors in best.groups().items()}
    return {**Knowledge(state.phi, state.learner, state.step).groups(), OPTIMIZER: state.optimizer, **kept}


def placed(groups: Mapping[str, Tensors], device: Device, step: int) -> tuple[TrialState, Knowledge | None]:
    """Return what ``groups_of`` was given, as a process on ``device`` that read it from a file would."""
    moved = {group: settled(device.place(tensors)) for group, tensors in groups.items()}
    present = Knowledge.of(moved, step)
    best = {group.removeprefix(BEST): moved[group] for group in moved if group.startswith(BEST)}
    state = TrialState(step, present.phi, present.state, moved.get(OPTIMIZER, {}))
    return state, Knowledge.of(best, step) if best else None
