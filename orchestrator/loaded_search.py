"""A search and its trials for Python: tables, learning curves, and what can be done with them next."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.dashboards import queries
from metaloom.dashboards.text import knobs_text, number, scored
from metaloom.orchestrator import export as exporting
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.reading import read_search
from metaloom.orchestrator.resume import resume
from metaloom.orchestrator.session import SearchSummary
from metaloom.orchestrator.store import DEFAULT_STORE, Store
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.scoring import Evaluation

if TYPE_CHECKING:
    import pandas

TABLE = ("state", "value", "low", "high", "steps", "seconds", "episodes_seen", "error")  # of a trial, before its knobs


def load_search(name: str, *, store: str | Path = DEFAULT_STORE) -> "LoadedSearch":
    """Read a search as its journal has it now; it may be running.

    Where the journal is damaged, its copies are read too, and ``warnings`` of ``record`` says so.

    Args:
        name: The search.
        store: Folder of all records.

    Raises:
        SearchError: There is no such search; with the nearest name.
        RecordsError: Its journal cannot be read.
    """
    record = read_search(name, store=store)
    path = Store(store).path
    return LoadedSearch(name, path, queries.search_summary(path, name), record)


@dataclass(frozen=True, repr=False)
class LoadedTrial:
    """One trial of a search.

    Attributes:
        search: The search's name.
        store: Folder of all records.
        row: What ``metaloom show --json`` prints of it (docs/json.md).
    """

    search: str
    store: Path
    row: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Its number in the search, from 0."""
        return int(self.row["id"])

    @property
    def state(self) -> str:
        """``finished``, ``stopped``, ``failed``, ``running`` or ``waiting``."""
        return str(self.row["state"])

    @property
    def value(self) -> float | None:
        """The first objective by its last report; None before the first."""
        return None if self.row["value"] is None else float(self.row["value"])

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the value over validation episodes; None where it is not of episodes."""
        low, high = self.row["interval"] or (None, None)
        return None if low is None or high is None else (low, high)

    @property
    def knobs(self) -> dict[str, Any]:
        """The value of each searched knob."""
        return dict(self.row["knobs"])

    @property
    def directory(self) -> Path:
        """Its folder: checkpoints, episodes, figures."""
        return queries.trial_folder(self.store, self.search, self.number)

    def evaluate(self, *, episodes: int = 600, seed: int | None = None, trust_code: bool = False) -> Evaluation:
        """Test it; see ``metaloom.evaluate``."""
        return exporting.evaluate(
            self.search, trial=str(self.number), episodes=episodes, seed=seed, store=self.store, trust_code=trust_code
        )

    def export(self, out: str | Path, *, episodes: int | None = None, trust_code: bool = False) -> Path:
        """Write its bundle; see ``metaloom.export``."""
        return exporting.export(
            self.search, out, trial=str(self.number), episodes=episodes, store=self.store, trust_code=trust_code
        )

    def __repr__(self) -> str:
        value = scored(self.value, self.interval)
        return f"<trial {self.number} of '{self.search}': {self.state}, {value}, {knobs_text(self.knobs)}>"


@dataclass(frozen=True, repr=False)
class LoadedSearch:
    """A search as it was when it was loaded.

    Attributes:
        name: Its name.
        store: Folder of all records.
        summary: What ``metaloom show --json`` prints (docs/json.md).
        record: All that its journal adds up to: settings, reports, tests.
    """

    name: str
    store: Path
    summary: Mapping[str, Any]
    record: SearchRecord

    @property
    def state(self) -> str:
        """``waiting``, ``running``, ``finished``, ``failed`` or ``interrupted``."""
        return str(self.summary["state"])

    @property
    def metric(self) -> str:
        """The first objective, which decides which trial is the best."""
        return str(self.summary["objectives"][0]["metric"])

    @property
    def best(self) -> LoadedTrial | None:
        """The best trial so far; None where no trial has reported, or none keeps the constraints."""
        best = self.summary["best"]
        return None if best is None else LoadedTrial(self.name, self.store, best)

    @property
    def trials(self) -> "pandas.DataFrame":
        """One row a trial, by its number: ``state``, ``value``, ``low``, ``high``, ``steps`` ... and each knob."""
        import pandas

        rows = self.summary["trials"]
        table = []
        for row in rows:
            low, high = row["interval"] or (None, None)
            values = {**row, "low": low, "high": high}
            others = {name: one for name, one in row.get("values", {}).items() if name != self.metric}
            table.append({name: values[name] for name in TABLE} | others | row["knobs"])
        index = pandas.Index([row["id"] for row in rows], name="trial", dtype="int64")
        return pandas.DataFrame(table, index=index, columns=None if table else list(TABLE))

    def trial(self, number: int) -> LoadedTrial:
        """Return a trial; raises SearchError if there is none of this number."""
        found = {row["id"]: row for row in self.summary["trials"]}
        if number not in found:
            has = ", ".join(map(str, found)) or "none"
            raise SearchError(f"search '{self.name}' has no trial {number}; it has {has}")
        return LoadedTrial(self.name, self.store, found[number])

    def learning_curves(self) -> "pandas.DataFrame":
        """Return one row a report: ``trial``, ``step``, ``seconds``, ``low`` and ``high``, and each reported metric."""
        import pandas

        reports = [(number, one) for number, trial in sorted(self.record.trials.items()) for one in trial.reports]
        table = [
            {"trial": number, "step": one.step, "seconds": one.seconds, "low": one.interval[0], "high": one.interval[1]}
            | {name: value for name, value in one.metrics.items() if name != "seconds"}
            for number, one in reports
        ]
        return pandas.DataFrame(table, columns=None if table else ["trial", "step", "seconds", "low", "high"])

    def resume(self, **options: Any) -> SearchSummary:
        """Go on with the search; the options are those of ``metaloom.resume``, such as ``trials=30``.

        This object stays as it was loaded: load the search again to see what is new.
        """
        return resume(self.name, self.store, **options)

    def __repr__(self) -> str:
        ended = sum(row["state"] in ("finished", "stopped", "failed") for row in self.summary["trials"])
        best = self.best
        told = "no best trial" if best is None else f"best trial {best.number}, {self.metric} {number(best.value)}"
        return f"<search '{self.name}': {self.state}, {ended} of {self.summary['asked']} trials ended; {told}>"
