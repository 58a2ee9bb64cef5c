"""The commands of ``metaloom``: each is one file, in ``commands/`` or in an installed package.

The file, or the entry point under ``metaloom.commands``, has the command's name, and the module defines ``COMMAND``
(docs/extending.md has an example). It is imported when the command is called or its help is shown. Imports that only
its body needs are in ``with deferred():``, so that the help is fast.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint

from metaloom.learners.plugins import PluginError, load_plugin, named_plugins, refusal

PLUGINS = "metaloom.commands"
ATTRIBUTE = "COMMAND"
BUILT_IN = "metaloom.orchestrator.commands"  # by name, because its modules import this one


@dataclass(frozen=True)
class Command:
    """A command as its file declares it.

    Attributes:
        function: Its parameters are the arguments and options, its docstring is the help. It returns an exit code; None
            is 0.
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
    """Return the names of this package's commands in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(import_module(BUILT_IN).__path__)))


@cache
def plugged() -> dict[str, EntryPoint]:
    """Return the commands of installed packages by name; raises PluginError, with the package, if two share a name."""
    commands: dict[str, EntryPoint] = {}
    for plugin in named_plugins(PLUGINS):
        if plugin.name in commands or plugin.name in built_in():
            raise PluginError(refusal(PLUGINS, plugin, f"two commands are named '{plugin.name}'"))
        commands[plugin.name] = plugin
    return commands


def names() -> set[str]:
    """Return the names of all commands, without the check for shared names."""
    return {*built_in(), *(plugin.name for plugin in named_plugins(PLUGINS))}


def load(name: str) -> Command:
    """Import a command's module and return its declaration.

    Raises:
        KeyError: There is no such command.
        PluginError: The module of an installed package cannot be imported, or declares no command.
    """
    if name in built_in():
        command: Command = getattr(import_module(f"{BUILT_IN}.{name}"), ATTRIBUTE)
        return command
    plugin = plugged()[name]
    try:
        command = getattr(load_plugin(PLUGINS, plugin), ATTRIBUTE)
    except AttributeError as error:
        raise PluginError(refusal(PLUGINS, plugin, f"it has no {ATTRIBUTE} = Command(...)")) from error
    return command
