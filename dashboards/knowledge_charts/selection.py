"""Which trials and which of their steps a page or a chart of meta-knowledge shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metaloom.dashboards import queries
from metaloom.dashboards.asked_numbers import is_whole_number, whole_number
from metaloom.dashboards.queries import QueryError
from metaloom.dashboards.store_reader import OpenStore
from metaloom.learners.errors import BadInput, shown, unknown
from metaloom.workers.records.names import CHECKPOINTS_FOLDER, META_KNOWLEDGE_FILE, snapshot_steps


@dataclass(frozen=True)
class TrialPlace:
    """A trial of a store: its search, its number, its folder, and what it is called beside another one."""

    search: str
    trial: int
    directory: Path
    label: str
    steps: int
    running: bool

    @property
    def begun(self) -> bool:
        """Whether it has learned anything that can be read: a checkpoint, or its end."""
        return any((self.directory / name).exists() for name in (META_KNOWLEDGE_FILE, CHECKPOINTS_FOLDER))

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps of its snapshots before its last one."""
        return tuple(step for step in snapshot_steps(self.directory) if step < self.steps or self.running)

    def near(self, step: int | None) -> int | None:
        """Return the snapshot at ``step`` or the last one before it; None, the last state, from its last step on."""
        if step is None or not self.kept or (step >= self.steps and step not in self.kept):
            return None
        return max((one for one in self.kept if one <= step), default=self.kept[0])


def place_of(store: OpenStore, name: str, number: int, *, beside: str = "") -> TrialPlace:
    """Return a trial's place; raises QueryError if there is none. ``beside`` is the search of the trial beside it."""
    record = store.record(name)
    if number not in record.trials:
        raise QueryError(f"{name}: {unknown('trial', str(number), list(map(str, record.trials)))}")
    trial = record.trials[number]
    label = f"trial {number}" if beside in ("", name) else f"{name}, trial {number}"
    directory = queries.trial_folder(store.path, name, number)
    return TrialPlace(name, number, directory, label, trial.step, trial.state in ("running", "waiting"))


def other_of(store: OpenStore, name: str, given: str) -> TrialPlace | None:
    """Return the trial that ``given`` names: ``4`` of the same search, or ``SEARCH:4``; None for an empty text.

    Raises BadInput for another form, and QueryError for a trial that there is not.
    """
    if not given.strip():
        return None
    search, _, number = given.strip().rpartition(":")
    if not is_whole_number(number):
        raise BadInput(f"with: {shown(given)} names no trial; allowed: a number such as 4, or SEARCH:4")
    return place_of(store, search or name, int(number), beside=name)


def asked_step(asked: Mapping[str, str]) -> int | None:
    """Return the step of a query string, None where the last state is asked for; raises BadInput for no number."""
    given = asked.get("step", "")
    return whole_number("step", given, "a number of outer steps") if given else None
