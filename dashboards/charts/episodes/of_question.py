"""The rows that charts of episodes are drawn of: those of the page's form."""

from metaloom.dashboards.charts.base import ChartSource
from metaloom.dashboards.episodes.asked import EpisodeQuestion
from metaloom.dashboards.episodes.index import INDEXES
from metaloom.dashboards.episodes.spreading import SpreadRows, spread_rows
from metaloom.dashboards.queries import search_folder


def rows_of(source: ChartSource, columns: tuple[str, ...]) -> SpreadRows:
    """Return columns of the rows that a chart's query string asks for; raises QueryError or FilterError."""
    index = INDEXES.of(search_folder(source.store.path, source.name))
    index.refresh(source.store.record(source.name), source.store.version(source.name))
    trial = {} if source.trial is None else {"trial": str(source.trial)}
    return spread_rows(index, EpisodeQuestion.of({**source.asked, **trial}), columns)
