"""Plugins: installed packages that bring methods, components, estimators or task sources of their own.

A package names a module under the entry point group ``metaloom.learners`` or
``metaloom.task_sources``; the module is imported once all that is built in is there, and
registers what it defines exactly as the files of this folder do.
"""

import difflib
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from metaloom.learners.errors import BadEnvironment, MetaloomError, unknown

LEARNERS, TASK_SOURCES = "metaloom.learners", "metaloom.task_sources"
NEEDED = "what a package has brought is needed here too: install it"


class PluginError(BadEnvironment):
    """An installed plugin cannot be loaded."""


@cache
def load_plugins(group: str) -> None:
    """Import what installed packages name under ``group``, by name; once in a process.

    Raises:
        PluginError: One cannot be imported, or registers a name that is taken; the message names it.
    """
    for plugin in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        try:
            import_module(plugin.module)
        except (Exception, SystemExit) as error:  # whatever foreign code raises is told with the name of who wrote it
            said = str(error) if isinstance(error, MetaloomError) else f"{type(error).__name__}: {error}"
            raise PluginError(
                f"the plugin '{plugin.name}' of {_package(plugin)} ({group}: {plugin.value}) cannot be loaded: {said}; "
                "repair or uninstall that package"
            ) from error


def unknown_or_absent(kind: str, name: object, allowed: Iterable[str]) -> str:
    """Describe an unknown name as ``unknown`` does; one that is no misspelling may be that of an absent package."""
    known = list(allowed)
    misspelt = difflib.get_close_matches(str(name), known, n=1, cutoff=0.75)
    return unknown(kind, name, known) + ("" if misspelt else f"; {NEEDED}")


def _package(plugin: EntryPoint) -> str:
    return "an unknown package" if plugin.dist is None else f"{plugin.dist.name} {plugin.dist.version}"
