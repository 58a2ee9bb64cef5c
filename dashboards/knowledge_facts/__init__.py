"""The facts behind figures and charts of what a trial has learned: one function each, in a file for each component.

A function registers under ``SLOT.WHAT`` and returns None if a trial has nothing of the kind. Whatever is registered is
drawn as a figure (``knowledge_figures``) and as a chart of the page of meta-knowledge. A package adds one by naming its
module under the entry point group ``metaloom.figures``.
"""

import pkgutil
from importlib import import_module

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge, read_knowledge
from metaloom.dashboards.knowledge_facts.panels import LearnedFacts

__all__ = ["FACTS", "LearnedFacts", "TrialKnowledge", "read_knowledge"]

for _module in pkgutil.iter_modules(__path__):  # each file registers its functions: no list is kept by hand
    import_module(f"{__name__}.{_module.name}")
