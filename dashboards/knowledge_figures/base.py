"""A figure of meta-knowledge, and the registry of what draws one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metaloom.dashboards.knowledge_facts.base import TrialKnowledge
from metaloom.learners.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One figure of what was learned.

    Attributes:
        name: File name without a suffix: lower-case letters, digits and hyphens.
        caption: What was learned, in one or two sentences with its numbers.
    """

    name: str
    caption: str
    figure: "Figure"


Drawer = Callable[[TrialKnowledge], "Picture | None"]
DRAWERS: Registry[Drawer] = Registry("figure of meta-knowledge")
