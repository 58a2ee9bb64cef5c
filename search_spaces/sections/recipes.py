"""Whether a method's recipe means something: every slot, kind, setting and value of it is one that there is.

Recipe settings are only looked up by name, so a misspelled one would be silently ignored.
"""

from collections.abc import Mapping

from metaloom.learners import Recipe
from metaloom.learners.errors import shown, unknown
from metaloom.search_spaces.errors import Problems, dotted
from metaloom.search_spaces.knobs.components import Catalogue, parse_component
from metaloom.search_spaces.reading.nodes import Place
from metaloom.search_spaces.sections.loops import parse_inner, parse_outer


def faults(recipe: Recipe, catalogues: Mapping[str, Catalogue]) -> list[str]:
    """Return what is wrong with a recipe, each with its place in the recipe.

    Args:
        recipe: A method's; those of installed packages are known here for the first time.
        catalogues: What may fill each slot.
    """
    found = Problems()
    for name, settings in recipe.learner.items():
        if name not in catalogues:
            found.add(("learner", name), unknown("slot", name, catalogues))
        elif not isinstance(settings, Mapping):
            found.add(("learner", name), f"got {shown(settings)}; give a mapping, such as {{kind: {settings}}}")
        else:
            parse_component(catalogues[name], settings, Place(("learner", name), f"learner.{name}"), found)
    parse_inner(recipe.inner, {}, Place(("inner",), "inner"), found)
    parse_outer(recipe.outer, {}, Place(("outer",), "outer"), found)
    return [f"{dotted(problem.path)}: {problem.message}" for problem in found.found]
