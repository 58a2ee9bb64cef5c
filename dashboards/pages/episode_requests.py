"""What the pages of episodes need of a request: the question, the index, and the rows as they are shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from metaloom.dashboards.asked_numbers import is_whole_number
from metaloom.dashboards.episodes.asked import FIELDS, EpisodeQuestion
from metaloom.dashboards.episodes.bounds import BOUNDED
from metaloom.dashboards.episodes.counting import known_total
from metaloom.dashboards.episodes.index import INDEXES, EpisodeIndex
from metaloom.dashboards.episodes.paging import ROWS, EpisodePage, PagePlace, episode_page
from metaloom.dashboards.episodes.sorting import MOST, SORTED
from metaloom.dashboards.pages.context import address, open_store
from metaloom.dashboards.queries import QueryError, search_folder
from metaloom.workers.records import names as records
from metaloom.workers.records.episode import COLUMNS, EPISODE_COLUMNS_SHOWN
from metaloom.workers.records.search import SearchRecord

SHOWN = (*EPISODE_COLUMNS_SHOWN[:4], "class_ids", *EPISODE_COLUMNS_SHOWN[4:])
TEXTS = frozenset(column.name for column in COLUMNS if column.kind == "text")


@dataclass(frozen=True)
class AskedEpisodes:
    """What a request asks of a search's episodes.

    Attributes:
        name: Of the search.
        record: Of the search.
        index: Of its parts, brought up to date.
        question: Which rows.
        fields: The query string, with the fields of the form.
    """

    name: str
    record: SearchRecord
    index: EpisodeIndex
    question: EpisodeQuestion
    fields: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Request, name: str, **defaults: str) -> "AskedEpisodes":
        """Read a request; raises QueryError or FilterError for what cannot be asked."""
        store = open_store(request)
        version = store.version(name)
        record, index = store.record(name), INDEXES.of(search_folder(store.path, name))
        index.refresh(record, version)
        fields = {**defaults, **request.query_params}
        return cls(name, record, index, EpisodeQuestion.of(fields), fields)

    def page(self) -> EpisodePage:
        """Return the page of rows that is asked for."""
        if self.question.sort:
            return SORTED.page(self.index, self.question, self.name, number=self.number)
        after, before = (PagePlace.of(one) if (one := self.fields.get(name)) else None for name in ("after", "before"))
        size = self.fields.get("rows", "")
        rows = min(max(int(size), 1), ROWS) if is_whole_number(size) else ROWS
        after = after if before is None else None
        return episode_page(self.index, self.question, self.name, after=after, before=before, size=rows)

    @property
    def number(self) -> int:
        """The number of a sorted page, from 0."""
        given = self.fields.get("page", "0")
        return min(int(given), MOST // ROWS - 1) if is_whole_number(given) else 0

    def here(self, *path: Any, **changes: Any) -> str:
        """Return an address under the page of episodes, for the same question."""
        query = self.question.address(**changes)
        place = address("searches", self.name, "episodes", *path)
        return f"{place}?{query}" if query else place

    def rows(self) -> dict[str, Any]:
        """Return what the template of rows shows."""
        page = self.page()
        is_sorted = bool(self.question.sort)
        last = self.number == MOST // ROWS - 1
        if is_sorted:
            previous = self.here(page=self.number - 1) if self.number else None
            following = self.here(page=self.number + 1) if page.has_more and not last else None
            again = self.here("parts", "rows", page=self.number)
        else:
            previous = self.here(before=page.before) if page.before else None
            following = self.here(after=page.after) if page.after else None
            again = self.here("parts", "rows", after=page.after or "", rows=max(1, ROWS - len(page.rows)))
        return {
            "name": self.name,
            "columns": SHOWN,
            "texts": TEXTS,
            "rows": [(row, self.address_of(row)) for row in page.rows],
            "page": page,
            "is_sorted": is_sorted,
            "previous": previous,
            "following": following if page.is_full else None,
            "again": None if page.is_full else again,
            "most": MOST,
            "is_last": last and page.has_more,
            "is_first": not (self.fields.get("after") or self.fields.get("before") or self.number),
        }

    def address_of(self, row: Mapping[str, Any]) -> str:
        """Return the page of one episode; a test's needs its seed, as tests of several seeds have equal numbers."""
        seed = {"seed": row["seed"]} if row["phase"] == records.TEST else {}
        return address(
            "searches", self.name, "episodes", row["trial"], row["phase"], row["step"], row["episode"], **seed
        )

    def form(self) -> dict[str, Any]:
        """Return what the template of the form shows."""
        return form_values(dict(self.question.given))

    def totals(self) -> dict[str, Any]:
        """Return what the template of the number of rows shows."""
        return {
            "total": known_total(self.index, self.question),
            "keeps_all": self.question.keeps_all,
            "progress": self.index.progress,
            "damaged": self.index.damaged,
            "count_url": self.here("parts", "count"),
            "state_url": self.here("parts", "totals"),
        }


SORT_WAYS = (("", "least first"), ("-", "greatest first"))


def form_values(given: Mapping[str, str], problems: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what the template of the form shows; ``problems`` are what is wrong, by field."""
    sorts = [(f"{sign}{column}", f"{column}, {way}") for column in BOUNDED for sign, way in SORT_WAYS]
    fields = {name: given.get(name, "") for name in FIELDS}
    return {"given": fields, "phases": records.PHASES, "sorts": sorts, "problems": problems or {}}


def known_trial(record: SearchRecord, name: str, number: int) -> int:
    """Return a trial's number; raises QueryError if the search does not have it."""
    if number not in record.trials:
        spans = f"{min(record.trials)} to {max(record.trials)}" if record.trials else "none yet"
        raise QueryError(f"search '{name}' has no trial {number} (it has {spans})")
    return number
