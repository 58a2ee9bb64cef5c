"""The query of a search's table of trials: what is filtered, sorted, shown, and at which page, as an address has it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from metaloom.dashboards.filters import FilterError
from metaloom.dashboards.text import number, scored, span
from metaloom.dashboards.trial_columns import TrialColumn
from metaloom.dashboards.trial_table import ROWS_A_PAGE, TrialFilter, TrialTable, numbers_of, ranges_text
from metaloom.learners.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

MANY_TRIALS = 1_000_000  # no search has as many


@dataclass(frozen=True)
class TrialQuery:
    """What is asked of the table.

    Attributes:
        asked: Which trials, in which order.
        columns: The keys of the columns to show; none: the default ones.
        page: From 1.
    """

    asked: TrialFilter = field(default_factory=TrialFilter)
    columns: tuple[str, ...] = ()
    page: int = 1

    @property
    def text(self) -> str:
        """The query string, without what is not asked for."""
        asked, pairs = self.asked, list[tuple[str, str]]()
        pairs += [("q", asked.text)] if asked.text else []
        pairs += [("state", state) for state in asked.states]
        pairs += [("where", asked.where)] if asked.where else []
        pairs += [("trials", self.trials_text)] if asked.numbers is not None else []
        pairs += [("sort", asked.sort)] if asked.sort else []
        pairs += [("column", key) for key in self.columns]
        pairs += [("page", str(self.page))] if self.page > 1 else []
        return urlencode(pairs)

    @property
    def trials_text(self) -> str:
        """The asked numbers of trials; empty where all are asked for."""
        return "" if self.asked.numbers is None else ranges_text(self.asked.numbers) or "none"

    def sorted_by(self, key: str) -> "TrialQuery":
        """Return the query of the next order by a column: up, down, and by number."""
        sort = {key: f"-{key}", f"-{key}": ""}.get(self.asked.sort, key)
        return replace(self, asked=replace(self.asked, sort=sort), page=1)

    def direction(self, key: str) -> str:
        """Return the order by a column, as ``aria-sort`` names it."""
        return {key: "ascending", f"-{key}": "descending"}.get(self.asked.sort, "none")

    def at(self, page: int) -> "TrialQuery":
        """Return the query of another page."""
        return replace(self, page=page)

    @property
    def is_filtered(self) -> bool:
        """Whether it leaves trials out."""
        return replace(self.asked, sort="") != TrialFilter()


def query_of(params: QueryParams) -> TrialQuery:
    """Read the query of an address; raises BadInput for what cannot be read."""
    trials = params.get("trials", "")
    page = params.get("page", "1")
    if not page.isdecimal() or len(page) > len(str(MANY_TRIALS)):
        raise BadInput(f"page={page!r} is no number of a page")
    numbers = None if not trials else frozenset[int]() if trials == "none" else numbers_of(trials, below=MANY_TRIALS)
    asked = TrialFilter(
        text=params.get("q", "").strip(),
        states=tuple(dict.fromkeys(params.getlist("state"))),
        where=params.get("where", "").strip(),
        numbers=numbers,
        sort=params.get("sort", ""),
    )
    return TrialQuery(asked, tuple(dict.fromkeys(params.getlist("column"))), max(1, int(page)))


@dataclass(frozen=True)
class TrialPage:
    """What is shown of the table.

    Attributes:
        query: What was asked.
        columns: That are shown.
        rows: Of the page: of each column its value and its text, by its key.
        total: The number of trials that the filter keeps.
        of: The number of all trials.
        problem: Why the query was not followed; empty if it was.
    """

    query: TrialQuery
    columns: tuple[TrialColumn, ...]
    rows: Sequence[dict[str, Any]]
    total: int
    of: int
    problem: str = ""

    @property
    def pages(self) -> int:
        """The number of pages."""
        return max(1, -(-self.total // ROWS_A_PAGE))

    @property
    def first(self) -> int:
        """The place of the first row of the page, from 1; 0 where there is none."""
        return (self.query.page - 1) * ROWS_A_PAGE + 1 if self.rows else 0


def page_of(table: TrialTable, params: QueryParams) -> TrialPage:
    """Return the page that is asked for; where the query cannot be followed, the first page and why."""
    try:
        query = query_of(params)
        kept, columns = table.filtered(query.asked), table.chosen(query.columns)
        if columns == table.chosen(()):
            query = replace(query, columns=())  # so that the knobs of later trials are shown too
    except BadInput as problem:
        plain = TrialQuery()
        return replace(_page(table, plain, table.table, table.chosen(())), problem=told(problem))
    return _page(table, query, kept, columns)


def told(problem: BadInput) -> str:
    """Say on a page what a command would say of its option."""
    text = str(problem)
    if not isinstance(problem, FilterError):
        return text
    return f"Condition: {text.removeprefix('--where').lstrip(': ').partition(' Example:')[0]}"


def _page(table: TrialTable, query: TrialQuery, kept: "pa.Table", columns: tuple[TrialColumn, ...]) -> TrialPage:
    pages = max(1, -(-kept.num_rows // ROWS_A_PAGE))
    query = query.at(min(query.page, pages))
    cut = kept.slice((query.page - 1) * ROWS_A_PAGE, ROWS_A_PAGE).to_pylist()
    return TrialPage(query, columns, cut, kept.num_rows, table.table.num_rows)


def cell_text(column: TrialColumn, row: dict[str, Any]) -> str:
    """Write a value of the table for the page."""
    value = row[column.key]
    if value is None:
        return ""
    if column.name == "value":
        return scored(value, (row["low"], row["high"]))
    if column.name == "seconds":
        return span(value)
    if isinstance(value, bool):
        return "yes" if value else ""
    return number(value) if isinstance(value, float) else str(value)


def is_number(column: TrialColumn, rows: Iterable[dict[str, Any]]) -> bool:
    """Return whether a column is aligned to the right."""
    kinds = {type(row[column.key]) for row in rows} - {type(None)}
    return bool(kinds) and kinds <= {int, float}
