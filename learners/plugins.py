"""Plugins: installed packages that bring methods, components, task sources, samplers and more of their own.

A package names a module under an entry point group, such as ``metaloom.learners`` or ``metaloom.figures``. The module
is imported after everything that is built in, and registers what it defines as the built-in files do. A command
(``metaloom.commands``) is imported only when it is called. A registry below the folder of its kinds is filled in the
same way: our own modules come first.
"""

import difflib
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from metaloom.learners.errors import BadEnvironment, MetaloomError, unknown

LEARNERS, TASK_SOURCES = "metaloom.learners", "metaloom.task_sources"
SAMPLERS, SCHEDULERS = "metaloom.samplers", "metaloom.schedulers"
SIMULATED = "metaloom.simulated"
BUILT_IN = {  # the package whose modules fill a group first
    TASK_SOURCES: "metaloom.workers.data",
    SAMPLERS: "metaloom.orchestrator.proposing.samplers",
    SCHEDULERS: "metaloom.orchestrator.scheduling",
    SIMULATED: "metaloom.orchestrator.simulation",
}
NEEDED = "what a package has brought is needed here too: install it"


class PluginError(BadEnvironment):
    """An installed plugin cannot be loaded."""


@cache
def load_plugins(group: str) -> None:
    """Import what installed packages name under ``group``, once in a process; raises PluginError if that fails."""
    if group in BUILT_IN:
        import_all(BUILT_IN[group])
    for plugin in named_plugins(group):
        load_plugin(group, plugin)


def named_plugins(group: str) -> list[EntryPoint]:
    """Return what installed packages name under ``group``, in the order of the names."""
    return sorted(entry_points(group=group), key=lambda one: (one.name, one.value))


def load_plugin(group: str, plugin: EntryPoint) -> ModuleType:
    """Import the module that an installed package names; raises PluginError, which names the package."""
    try:
        return import_module(plugin.module)
    except (Exception, SystemExit) as error:  # any error of a plugin's code is reported with its package's name
        reason = str(error) if isinstance(error, MetaloomError) else f"{type(error).__name__}: {error}"
        raise PluginError(refusal(group, plugin, reason)) from error


def refusal(group: str, plugin: EntryPoint, reason: str) -> str:
    """Say which plugin of which package cannot be loaded, why, and what to do."""
    return (
        f"the plugin '{plugin.name}' of {package_of(plugin)} ({group}: {plugin.value}) cannot be loaded: {reason}; "
        "repair or uninstall that package"
    )


def import_all(package: str) -> None:
    """Import every module of a package: each registers what it defines, so that no list is kept by hand."""
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")


def unknown_or_absent(kind: str, name: object, allowed: Iterable[str]) -> str:
    """Describe an unknown name as ``unknown`` does; if no known name is close, a plugin package may be missing."""
    names = list(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.75)
    return unknown(kind, name, names) + ("" if close else f"; {NEEDED}")


def package_of(plugin: EntryPoint) -> str:
    """Return the name and version of the package that brings a plugin."""
    return "an unknown package" if plugin.dist is None else f"{plugin.dist.name} {plugin.dist.version}"
