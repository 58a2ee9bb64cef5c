"""What a trial has learned, in words and pictures: one drawer per component, each in a file of its own here.

A drawer registers under ``SLOT.WHAT`` and returns None where there is nothing for it to draw::

    @DRAWERS.register("weighting.curve")
    def weight_curve(known: Known) -> Picture | None:
        for weighting, phi in known.members("weighting"):
            if isinstance(weighting, MetaWeightNet):
                figure = canvas(5.0, 3.5)
                axes = figure.add_subplot()
                axes.plot(losses, weighting.weights(phi, Examples(losses, losses)))
                name_axes(axes, "", "loss", "weight")
                return Picture("weight-curve", "Examples of loss 0.1 weigh 0.9, those of loss 3 weigh 0.1.", figure)
        return None

A package brings a figure by naming a module of this form under the entry point group ``metaloom.figures``.

``canvas`` and ``name_axes`` are those of ``dashboards.canvas``. The pictures are drawn for the best trial of a
search (artifacts of its MLflow run) and for an exported bundle, whose card shows each with its caption.
"""

import pkgutil
from importlib import import_module

from metaloom.dashboards.knowledge_figures.base import DRAWERS, Known, Picture, known_of, pictures
from metaloom.learners.plugins import load_plugins

PLUGINS = "metaloom.figures"
__all__ = ["DRAWERS", "Known", "Picture", "known_of", "pictures"]

for _module in pkgutil.iter_modules(__path__):  # each file registers its drawers: no list is kept by hand
    import_module(f"{__name__}.{_module.name}")
load_plugins(PLUGINS)  # at the end: a plugin may build on anything here
