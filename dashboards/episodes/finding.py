"""Finds the record of one episode by its trial, phase, step and number."""

from typing import Any

from metaloom.dashboards.episode_scan import QueryError
from metaloom.dashboards.episodes.asked import EpisodeQuestion
from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.dashboards.episodes.paging import episode_page
from metaloom.dashboards.episodes.part_reading import Part

FIND_S = 10.0  # a trial's parts are few


def found_episode(
    index: EpisodeIndex, name: str, trial: int, phase: str, *, step: int, episode: int, seed: int | None = None
) -> tuple[dict[str, Any], Part]:
    """Return the row of an episode, and its part; raises QueryError if the whole parts of the trial have none.

    Args:
        index: Of the search.
        name: Of the search.
        trial: The trial's number.
        phase: Of the episode.
        step: Outer steps done when it was played.
        episode: Its number.
        seed: That it was drawn with: tests of several seeds have equal numbers. None: the first.
    """
    fields = {"trial": str(trial), "phase": phase, "where": f"step == {step} and episode == {episode}"}
    question = EpisodeQuestion.of({**fields, **({} if seed is None else {"seed": str(seed)})})
    page = episode_page(index, question, name, size=1, time_s=FIND_S)
    if not page.rows:
        drawn = "" if seed is None else f" with the seed {seed}"
        raise QueryError(f"trial {trial} of '{name}' has no record of {phase} episode {episode} at step {step}{drawn}")
    return page.rows[0], page.parts[0]
