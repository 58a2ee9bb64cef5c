"""Writes the rows of a damaged part again, where the trial can go back to a checkpoint before them.

A trial has two generations of checkpoints. If its newest part is damaged, it goes back by one generation, and computes
the same steps again, bit for bit. The rows of older parts are lost: the steps are done, and their knowledge is kept.
"""

from collections.abc import Sequence
from pathlib import Path

from metaloom.workers.checkpoint import CheckpointFolder
from metaloom.workers.durable import ASIDE, remove_asides
from metaloom.workers.records.names import CHECKPOINTS_FOLDER, steps_of_part, trial_directory
from metaloom.workers.records.parts import DamagedPart, damaged_parts
from metaloom.workers.records.search import TrialRecord


def mend_trials(folder: Path, trials: Sequence[TrialRecord]) -> dict[int, list[str]]:
    """Make unfinished trials of the search in ``folder`` write damaged parts again where they can.

    Returns what becomes of the parts, by trial, without what the trials' warnings say already.
    """
    notes = {}
    for trial in trials:
        directory = trial_directory(folder, trial.number)
        # The earlier checkpoint of a trial of a population may be of other knobs than those it goes on with.
        found = mend_parts(directory, damaged_parts(directory, trial), may_go_back=not trial.generation)
        if new := [note for note in found if note not in trial.warnings]:
            notes[trial.number] = new
    return notes


def mend_parts(directory: Path, damaged: Sequence[DamagedPart], *, may_go_back: bool) -> list[str]:
    """Go back to the earlier checkpoint of a trial if that mends a part; return what becomes of each part."""
    if not damaged:
        return []
    starts = [steps_of_part(part.path.name)[0] for part in damaged]
    folder = directory / CHECKPOINTS_FOLDER
    step = _gone_back(folder, max(starts)) if may_go_back else _newest_step(folder)
    notes = []
    for part, start in zip(damaged, starts, strict=True):
        again = f"its rows are written again, from the checkpoint of step {step}"
        end = steps_of_part(part.path.name)[1]
        lost = f"the rows of the outer steps from {start} to {end} are lost; all others are kept"
        notes.append(f"{part.path.name} is damaged ({part.reason}): {again if start >= step else lost}")
    return notes


def _gone_back(folder: Path, step: int) -> int:
    """Remove the newest checkpoint if an undamaged one at or before outer step ``step`` is left; return its step.

    With a ``step`` of 0 it may also be the only one: the trial then begins again. A kill amid leaves the older one.
    """
    newest = _newest_step(folder)
    last = max((path.stem for path in folder.glob("checkpoint-*")), default="")
    asides = {path: path.with_name(f"{ASIDE}{path.name}") for path in folder.glob(f"{last}.*")}
    if newest <= step or not last:
        return newest
    for path, aside in asides.items():
        path.rename(aside)
    before = _newest_step(folder)
    is_left = any(folder.glob("checkpoint-*"))
    if before > step or (before == 0 and (is_left or step > 0)):
        for path, aside in asides.items():
            aside.rename(path)
        return newest
    remove_asides(folder)
    return before


def _newest_step(folder: Path) -> int:
    """Return the outer step of the newest undamaged checkpoint; 0 if there is none."""
    checkpoint, _ = CheckpointFolder(folder).newest()
    return 0 if checkpoint is None else int(checkpoint.facts["step"])
