"""The settings of a search, chosen by how searches with them do on tables of results.

Meta-learning by a search over searches; the portfolio is greedy as that of Feurer et al., 2022
(Auto-sklearn 2.0, https://arxiv.org/abs/2007.04074, section 3.1), from full tables in place of runs.
"""

from metaloom.learners.base import METHODS, Recipe

METHODS["search_settings"] = Recipe(
    summary="searches a sampler, a scheduler and a portfolio for other searches, on tables of results",
    paper="a search over searches; the portfolio as in Feurer et al., 2022, https://arxiv.org/abs/2007.04074",
    learner={"prediction": {"kind": "search_settings"}},
    outer={"steps": 0},
)
