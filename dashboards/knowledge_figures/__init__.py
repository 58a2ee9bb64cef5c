"""Captioned pictures of what a trial has learned. Each file holds the drawers of one component.

A drawer registers under ``SLOT.WHAT`` and returns None if it has nothing to draw. A package adds one by naming its
module under the entry point group ``metaloom.figures`` (docs/extending.md has an example). Pictures are drawn for the
best trial of a search (as artifacts of its MLflow run) and for an exported bundle, whose card shows each with its
caption.
"""

import pkgutil
from importlib import import_module

from metaloom.dashboards.knowledge_figures.base import DRAWERS, Picture, TrialKnowledge, pictures, read_knowledge
from metaloom.learners.plugins import load_plugins

PLUGINS = "metaloom.figures"
__all__ = ["DRAWERS", "Picture", "TrialKnowledge", "pictures", "read_knowledge"]

for _module in pkgutil.iter_modules(__path__):  # each file registers its drawers: no list is kept by hand
    import_module(f"{__name__}.{_module.name}")
load_plugins(PLUGINS)  # last: a plugin may use everything above
