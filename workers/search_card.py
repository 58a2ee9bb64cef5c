"""The part of a bundle's card that is about searches: the portfolios, and how the section is used."""

from typing import Any

from metaloom.learners.episode import TaskShape
from metaloom.learners.solvers.search_settings import SEARCHES

SHOWN = 10  # configurations of a portfolio

INTRODUCTION = (
    "The section `search` of other experiments: a sampler, a scheduler, and the configurations that are tried first. "
    "It was chosen by simulated searches on tables of results. A loss is the regret that a search leaves, divided by "
    "that of the table's median configuration."
)
USAGE = "```\nmetaloom search FILE --search-from PATH\n```"


def is_of_searches(task: TaskShape) -> bool:
    """Whether a bundle holds the settings of searches."""
    return task.kind == SEARCHES.name


def portfolios(task: TaskShape, tried: int) -> list[str]:
    """Describe the portfolios: a table for each space of knobs, at most ``SHOWN`` configurations of those tried first.

    Args:
        tried: How many of a portfolio the section tries.
    """
    parts: list[str] = []
    for space in (one for one in task.columns if "portfolio" in one) if tried else ():
        names, first = list(space["knobs"]), space["portfolio"][:tried]
        lines = [
            f"Learned on {', '.join(space['learned_on'])}; the first {len(first)} of {len(space['portfolio'])}:",
            "",
        ]
        lines += [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
        lines += [f"| {' | '.join(_short(one.get(name, '')) for name in names)} |" for one in first[:SHOWN]]
        lines += [f"\n{len(first) - SHOWN} more are in `config.yaml`."] if len(first) > SHOWN else []
        parts.append("\n".join(lines))
    return ["## Tried first", *parts] if parts else []


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
