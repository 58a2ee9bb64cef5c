"""Searches as tasks: each is one simulated search on a table of results, from one seed.

The portfolio is learned here, as the encodings of a table's columns are, and travels with a bundle in the same place
(``TaskShape.columns``). What is tried first on a table is learned from the other tables alone, also where it is one of
those that are learned from: no result of a table is used before the search has asked for it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch

from metaloom.learners.domains import Int
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.solvers.search_settings import SEARCHES
from metaloom.search_spaces.knobs.sampling import Domain
from metaloom.search_spaces.sections.tasks import TaskSettings
from metaloom.workers.data.base import SOURCES, SPLITS, DataError, SampledEpisode, Source, check_split
from metaloom.workers.data.result_tables.base import ResultTable
from metaloom.workers.data.result_tables.opening import open_table
from metaloom.workers.data.result_tables.portfolio import Configuration, learned_portfolio, same_knobs

SEEDS = 2**20  # seeds of searches are below it, so that float32 holds them
TABLE, STARTS, PORTFOLIO = "table", "starts", "portfolio"


@dataclass(frozen=True)
class SearchTasks(TaskSettings):
    """Tables of results, such as ``hpobench/car``, on which searches are simulated.

    Attributes:
        tables: What the portfolio is learned from.
        validation: The tables that judge the settings; null is those of ``tables``, each with the portfolio of the
            others.
        test: The tables of the test, none of them in ``tables``; null is those of ``validation``.
        budget: Trials of a simulated search, after which its regret counts.
        searches: How many searches are simulated on a table, each from another seed.
        workers: How many trials a simulated search trains at once.
        portfolio: How many configurations are learned; ``learner.prediction.portfolio`` says how many are tried.
    """

    task_kind: ClassVar[str] = SEARCHES.name
    tables: tuple[str, ...]
    validation: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None
    budget: Annotated[int, Int(1, 1000, log=True)] = 100
    searches: Annotated[int, Int(1, 1000, log=True)] = 3
    workers: Annotated[int, Int(1, 1000, log=True)] = 1
    portfolio: Annotated[int, Int(1, 50)] = 30

    def tables_of(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's tables."""
        validation = self.tables if self.validation is None else self.validation
        test = validation if self.test is None else self.test
        return {"train": self.tables, "validation": validation, "test": test}[split]


@SOURCES.register("searches")
class Searches(Source):
    """An episode is one simulated search; its query names the table and the seed."""

    name = "searches"
    Config = SearchTasks

    def __init__(self, config: SearchTasks, *, seed: int) -> None:
        self.config, self.seed = config, seed
        _check_given(config)
        self.names = list(dict.fromkeys(name for split in SPLITS for name in config.tables_of(split)))
        tables = {name: _opened(name, config) for name in self.names}
        columns = _described(tables, config)
        self.shape = TaskShape(config.task_kind, (2,), 1, columns=tuple(columns))
        self.digest = digest_of(tables.values())

    @classmethod
    def open(cls, config: SearchTasks, *, seed: int, cache: Path) -> Self:
        return cls(config, seed=seed)

    def episode(self, split: str, index: int) -> SampledEpisode:
        """Return search ``index`` of a split: its tables in turn, and then each once more from another seed."""
        check_split(split, index, self.available(split))
        tables = self.config.tables_of(split)
        place = self.names.index(tables[index % len(tables)])
        text = f"{self.seed}/{split}/{self.names[place]}/{index // len(tables)}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % SEEDS
        asked, none = torch.tensor([[float(place), float(seed)]]), torch.zeros(1, 1)
        return SampledEpisode(Episode(Support(asked, none), asked, none), seed, (place,), ())

    def available(self, split: str) -> int:
        """Return how many searches a split has."""
        check_split(split, 0)
        return len(self.config.tables_of(split)) * self.config.searches


def _check_given(config: SearchTasks) -> None:
    """Refuse an empty list, a table that stands in one twice, and one of the test that is learned from."""
    for setting, given in (("tables", config.tables), ("validation", config.validation), ("test", config.test)):
        if given == ():
            raise DataError(f"tasks.{setting}: got an empty list; give at least one table, such as bowls/1")
        for place, name in enumerate(given or ()):
            here = f"tasks.{setting}[{place}]"
            if (first := (given or ()).index(name)) < place:
                raise DataError(f"{here}: {name} stands in tasks.{setting}[{first}] too; remove one of both")
            if setting == "test" and name in config.tables:
                other = f"tasks.tables[{config.tables.index(name)}]"
                raise DataError(f"{here}: {name} is learned from too, by {other}; list it in one of both")


def _opened(name: str, config: SearchTasks) -> ResultTable:
    """Open a table; raises DataError that names the setting."""
    setting = next(split for split in SPLITS if name in config.tables_of(split)).replace("train", "tables")
    try:
        return open_table(name)
    except DataError as error:
        raise DataError(f"tasks.{setting}: {error}") from error


def _described(tables: Mapping[str, ResultTable], config: SearchTasks) -> list[dict[str, Any]]:
    """Return what is known of each table before its search begins, then the portfolio of each space."""
    columns: list[dict[str, Any]] = []
    for name, table in tables.items():
        others = [tables[one] for one in config.tables if one != name and same_knobs(tables[one], table)]
        starts = _plain(learned_portfolio(others, config.portfolio))
        columns.append({TABLE: name, "budget": config.budget, "workers": config.workers, STARTS: starts})
    spaces: list[list[ResultTable]] = []
    for name in config.tables:
        alike = next((one for one in spaces if same_knobs(one[0], tables[name])), None)
        spaces.append([tables[name]]) if alike is None else alike.append(tables[name])
    for space in spaces:
        knobs = {name: described_domain(domain) for name, domain in space[0].domains.items()}
        learned = _plain(learned_portfolio(space, config.portfolio))
        columns.append({PORTFOLIO: learned, "knobs": knobs, "learned_on": [one.name for one in space]})
    return columns


def _plain(configurations: Sequence[Configuration]) -> list[dict[str, Any]]:
    return [dict(one) for one in configurations]


def described_domain(domain: Domain) -> dict[str, Any]:
    """Return a knob's domain as JSON values."""
    facts = {name: value for name, value in asdict(domain).items() if name in ("low", "high", "log", "step", "options")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}


def digest_of(tables: Any) -> str:
    """Return a digest of what the tables hold."""
    total = hashlib.sha256()
    for table in tables:
        total.update(repr((table.name, table.measure, list(table.worth))).encode())
    return total.hexdigest()
