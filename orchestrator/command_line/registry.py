"""The commands of ``metaloom``: each is one file, here in ``commands/`` or in an installed package.

The file's name, or the entry point's under ``metaloom.commands``, is the command's name. The module holds ``COMMAND``::

    def greet(name: str, as_json: JsonOption = False) -> None:
        \"\"\"Greet a search.\"\"\"
        with answering(as_json) as answer:
            answer.give({"greeted": name}, lambda screen: screen.print(f"hello, {name}"))

    COMMAND = Command(greet, examples=("metaloom greet first",))

A command's module is imported when it is called or its help is shown. Imports that its body alone needs stand in
``with deferred():``, so that the help needs nothing heavy.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any

from metaloom.learners.plugins import PluginError, load_plugin, named_plugins, refusal

PLUGINS = "metaloom.commands"
ATTRIBUTE = "COMMAND"
BUILT_IN = "metaloom.orchestrator.commands"  # by name: each of its modules imports this one


@dataclass(frozen=True)
class Command:
    """A command as its file declares it.

    Attributes:
        function: Does it; its parameters are the arguments and options, its docstring the help. Returns an exit code,
            or None for 0.
        examples: Command lines, shown at the end of the help.
    """

    function: Callable[..., int | None]
    examples: tuple[str, ...]

    @property
    def help(self) -> str:
        """The first line of the help."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


@cache
def built_in() -> tuple[str, ...]:
    """Return the names of the commands of this package, in the order of the alphabet."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(import_module(BUILT_IN).__path__)))


@cache
def plugged() -> dict[str, EntryPoint]:
    """Return the commands that installed packages bring, by name.

    Raises:
        PluginError: One has the name of another command; the message names its package.
    """
    found: dict[str, EntryPoint] = {}
    for plugin in named_plugins(PLUGINS):
        if plugin.name in found or plugin.name in built_in():
            raise PluginError(refusal(PLUGINS, plugin, f"two commands are named '{plugin.name}'"))
        found[plugin.name] = plugin
    return found


def names() -> set[str]:
    """Return the names of all commands, without looking whether two packages share one."""
    return {*built_in(), *(plugin.name for plugin in named_plugins(PLUGINS))}


def load(name: str) -> Command:
    """Import a command's module and return its declaration.

    Raises:
        KeyError: There is no such command.
        PluginError: The module of an installed package cannot be imported, or declares no command.
    """
    if name in built_in():
        return _declared(import_module(f"{BUILT_IN}.{name}"))
    plugin = plugged()[name]
    try:
        return _declared(load_plugin(PLUGINS, plugin))
    except AttributeError as error:
        raise PluginError(refusal(PLUGINS, plugin, f"it has no {ATTRIBUTE} = Command(...)")) from error


def _declared(module: Any) -> Command:
    command: Command = getattr(module, ATTRIBUTE)
    return command
