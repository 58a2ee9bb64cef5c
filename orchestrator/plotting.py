"""``metaloom plot``: a plot of a search as a PNG or SVG file."""

import logging
from pathlib import Path

from metaloom.dashboards import plots, queries
from metaloom.dashboards.canvas import image
from metaloom.learners.errors import BadInput, unknown
from metaloom.orchestrator.proposing.importance import importances
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.workers import durable

IMPORTANCE = "importance"
KINDS = (*plots.PLOTS, IMPORTANCE)
FORMS = ("png", "svg")
logger = logging.getLogger("metaloom")


def plot(name: str, kind: str, *, out: str | Path | None = None, store: str | Path = DEFAULT_STORE) -> Path:
    """Draw a search and return the file.

    Args:
        name: The search.
        kind: ``history``, ``curves``, ``importance``, ``parallel``, ``slice``, ``pareto``, ``transfer`` or ``sets``.
        out: The file, which is replaced; its ending says whether it is PNG or SVG. None: ``NAME-KIND.png`` here.
        store: Folder of all records.

    Raises:
        BadInput: There is no such search or kind, the ending is another one, or the search has too little for it.
        StorageError: The file cannot be written.
    """
    if kind not in KINDS:
        raise BadInput(f"--kind: {unknown('kind of plot', kind, KINDS)}")
    path = Path(out or f"{name}-{kind}.png")
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise BadInput(f"--out: {path} has the ending '{path.suffix}'; allowed are .png and .svg")
    search = queries.search_record(Path(store), name)
    if kind == IMPORTANCE:
        shares, left_out = importances(name, search)
        if left_out:
            logger.warning("only some trials have %s: left out of the importances", ", ".join(left_out))
        figure = plots.importance_plot(name, search, shares)
    else:
        figure = plots.PLOTS[kind](name, search)
    durable.write_bytes(path, image(figure, form))
    return path
