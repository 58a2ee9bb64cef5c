"""The user's own searches as tables, by their folders: ``search/metaloom-store/searches/first``.

The trials of a search that has ended are the configurations, and what they logged is their curves (``LoggedTable``).
Searches count together for a portfolio where they search the same knobs in the same ranges.
"""

from pathlib import Path

from metaloom.learners.errors import BadInput
from metaloom.workers.data.base import DataError
from metaloom.workers.data.result_tables.base import ResultTable
from metaloom.workers.data.result_tables.logged import LoggedTable
from metaloom.workers.data.result_tables.opening import READERS, TableReader
from metaloom.workers.records.journal_sources import holds_records

FAMILY = "search"


def read_own(family: str, name: str) -> ResultTable:
    """Return the table of the search in a folder; raises DataError if there is none, or it has not ended."""
    # the schema's pydantic is absent where a bundle is served
    from metaloom.search_spaces.experiment import FIRST_FINGERPRINT_VERSION
    from metaloom.search_spaces.loading import load_experiment
    from metaloom.workers.records.search import SearchRecord

    folder = Path(name)
    if not holds_records(folder):
        raise DataError(f"'{family}/{name}': the folder {folder} holds no search; give STORE/searches/NAME")
    record = SearchRecord.read(folder)
    version = int(record.created.get("fingerprint_version", FIRST_FINGERPRINT_VERSION))
    try:
        experiment = load_experiment(record.created["experiment"], fingerprint_version=version)
        return LoggedTable.of(f"{family}/{name}", record, experiment)
    except BadInput as error:
        raise DataError(f"'{family}/{name}': {error}") from error


READERS.add(FAMILY, TableReader(FAMILY, read_own, lambda family: [], "a search of yours, by its folder"))
