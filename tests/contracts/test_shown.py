"""What every solver shows of an episode can be drawn: the names and shapes that the figures read."""

import pytest

from metaloom.dashboards.knowledge_figures import TrialKnowledge, pictures
from metaloom.learners.state import LearnerState
from metaloom.testing.problems import begun
from tests.contracts import test_learners

ROWS = test_learners.TestSolvers.rows
FIGURES = {
    "prototypes": "episode-features",
    "attention": "episode-attention",
    "relation": "episode-relation",
    "adjacency": "episode-adjacency",
    "reads": "memory-reads",
    "surprise": "next-tokens",
    "regrets": "regrets",
    "attribute_weights": "attribute-weights",
}


@pytest.mark.parametrize("solver", sorted(ROWS))
def test_what_a_solver_shows_is_drawn(solver: str) -> None:
    row = ROWS[solver]
    learner, episode = row.built(solver), row.episode(row.task, 0)
    shown = learner.inspect(*begun(learner), episode)
    assert all(bool(one.isfinite().all()) and not one.requires_grad for one in shown.values())
    drawn = {picture.name for picture in pictures(TrialKnowledge({}, row.task, {}, LearnerState(), shown))}
    assert drawn >= {figure for name, figure in FIGURES.items() if name in shown}
    assert ("film-scales" in drawn) == any(name.startswith("film/") for name in shown)
    assert bool(drawn) == bool(shown)
