"""The stages before a search's trials: what each is, how it validated, and which trials have started from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from metaloom.workers.records.names import STAGES_FOLDER, trial_directories
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.stages import StageRecord, needed_digests


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """A stage from which trials of a search have started."""

    name: Annotated[str, "only with stages: as the experiment calls it"]
    digest: Annotated[str, "only with stages: the name of its folder in the store's `stages`"]
    method: Annotated[str, "only with stages: that trained it"]
    source: Annotated[str, "only with stages: of its tasks"]
    metric: Annotated[str, "only with stages: what it was validated by"]
    value: Annotated[float, "only with stages: that metric, when it was finished"]
    interval: Annotated[tuple[float, float], "only with stages: [low, high], 95%, of this value"]
    steps: Annotated[int, "only with stages: its outer steps"]
    seconds: Annotated[float, "only with stages: of its training, all attempts together"]
    starts: Annotated[Mapping[str, str], "only with stages: the stages that it starts from, each with its digest"]
    trials: Annotated[tuple[int, ...], "only with stages: the trials that have started from it"]
    trained_by: Annotated[int | None, "only with stages: the trial that has trained it; null if all found it finished"]


def stage_rows(search: SearchRecord) -> tuple[StageRow, ...] | None:
    """Return the stages of a search's trials, in the order of the experiment; None where there are none."""
    found: dict[str, StageRecord] = {}
    trials: dict[str, list[int]] = {}
    trained: dict[str, int] = {}
    for trial_number, trial in sorted(search.trials.items()):
        for document in trial.stages:
            record = StageRecord.from_json(document)
            found.setdefault(record.digest, record)
            trials.setdefault(record.digest, []).append(trial_number)
            if not record.reused:
                trained[record.digest] = trial_number
    rows = [
        StageRow(
            **{name: value for name, value in vars(record).items() if name != "reused"},
            trials=tuple(trials[digest]),
            trained_by=trained.get(digest),
        )
        for digest, record in found.items()
    ]
    return tuple(rows) or None


def stage_folders(
    store: Path, search_folder: Path, search: SearchRecord, trial: int | None = None
) -> dict[str, list[Path]]:
    """Return the folders of the stages of a search's trials, or of one of them, by name; also of unfinished stages."""
    asked = {
        (number, *one)
        for number, path in trial_directories(search_folder).items()
        for one in needed_digests(path).items()
    }
    asked |= {(number, one["name"], one["digest"]) for number, of in search.trials.items() for one in of.stages}
    found: dict[str, list[Path]] = {}
    for number, name, digest in sorted(asked):
        folder = store / STAGES_FOLDER / digest
        if trial in (None, number) and folder not in found.get(name, []):
            found.setdefault(name, []).append(folder)
    return found
