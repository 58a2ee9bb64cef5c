"""Replays a search that has ended: the decisions of the same or of another sampler and scheduler, on its curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloom.orchestrator.reading import read_search
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.search_spaces.experiment import FIRST_FINGERPRINT_VERSION, Experiment
from metaloom.search_spaces.loading import load_experiment
from metaloom.workers.data.result_tables import LoggedTable
from metaloom.workers.records.search import SearchRecord


@dataclass(frozen=True)
class Replayed:
    """A search that can be replayed.

    Attributes:
        record: As it was run.
        table: Its trials as a table.
    """

    record: SearchRecord
    table: LoggedTable

    @property
    def seed(self) -> int:
        """The search's seed."""
        return int(self.record.created["seed"])

    @property
    def warm_start(self) -> Sequence[Mapping[str, Any]]:
        """What the search tried first."""
        return self.record.created.get("warm_start") or ()

    def experiment(self, changes: Sequence[str] = ()) -> Experiment:
        """Return its experiment with changes of the search section; raises ExperimentError."""
        return _experiment_of(self.record, changes)


def read_replayed(name: str, store: str | Path = DEFAULT_STORE) -> Replayed:
    """Read a search that is to be replayed.

    Raises:
        BadInput: There is no such search, it has not ended, or it has nothing to replay.
    """
    record = read_search(name, store=store)
    return Replayed(record, LoggedTable.of(name, record, _experiment_of(record, ())))


def _experiment_of(record: SearchRecord, changes: Sequence[str]) -> Experiment:
    created = record.created
    version = created.get("fingerprint_version", FIRST_FINGERPRINT_VERSION)
    return load_experiment(created["experiment"], changes, fingerprint_version=version)
