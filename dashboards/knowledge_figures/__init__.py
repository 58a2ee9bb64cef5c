"""Captioned pictures of what a trial has learned: a figure of each function of facts (``knowledge_facts``).

A package adds one by naming its module under the entry point group ``metaloom.figures`` (docs/extending.md has an
example): the module registers a function of facts, which is drawn here and as a chart of the page of meta-knowledge, or
under ``DRAWERS`` a function that draws by itself. Pictures are drawn for the best trial of a search (as artifacts of
its MLflow run) and for an exported bundle, whose card shows each with its caption.
"""

from metaloom.dashboards.knowledge_facts import FACTS, TrialKnowledge, read_knowledge
from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture
from metaloom.dashboards.knowledge_figures.drawing import figure_of
from metaloom.learners.plugins import load_plugins

PLUGINS = "metaloom.figures"
__all__ = ["DRAWERS", "FACTS", "Picture", "TrialKnowledge", "picture", "pictures", "read_knowledge"]


def picture(kind: str, knowledge: TrialKnowledge) -> Picture | None:
    """Draw one kind of facts, or what a package draws by itself; None if there is nothing to draw."""
    if kind not in FACTS:
        return DRAWERS[kind](knowledge)
    facts = FACTS[kind](knowledge)
    return None if facts is None else Picture(facts.name, facts.caption, figure_of(facts))


def pictures(knowledge: TrialKnowledge) -> list[Picture]:
    """Draw all that was learned, in the order of the kinds' names."""
    kinds = sorted({*FACTS, *DRAWERS})
    return [drawn for kind in kinds if (drawn := picture(kind, knowledge)) is not None]


load_plugins(PLUGINS)  # last: a plugin may use everything above
