"""The group of all commands. It imports a command's module when the command is called or its help is shown."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from metaloom.learners.plugins import package_of
from metaloom.orchestrator.command_line import registry

CONTEXT = {"help_option_names": ["-h", "--help"]}


def examples_text(*lines: str) -> str:
    """Return the examples at the end of a help, one per line."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


class LazyCommands(MutableMapping[str, Any]):
    """Names to typer's commands, each built on first access."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = build_command(name)
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __contains__(self, name: object) -> bool:
        return name in registry.built_in() or name in registry.plugged()

    def __iter__(self) -> Iterator[str]:
        yield from registry.built_in()
        yield from registry.plugged()

    def __len__(self) -> int:
        return len(list(iter(self)))


def build_command(name: str) -> TyperCommand:
    """Import the module of a command and build it; raises KeyError for an unknown name."""
    command = registry.load(name)
    app = typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=CONTEXT
    )
    app.command(name=name, epilog=examples_text(*command.examples))(command.function)
    built = get_command(app)
    assert isinstance(built, TyperCommand)
    return built


class LazyGroup(TyperGroup):
    """The group of the command ``metaloom``."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None for an unknown name; errors of its module propagate."""
        if cmd_name not in self.commands:  # not get, which would take a KeyError of the module for an unknown name
            return None
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands: the built-in ones with their help, those of a package with its name."""
        lines = [(name, registry.load(name).help) for name in registry.built_in()]
        lines += [(name, f"from the package {package_of(plugin)}") for name, plugin in registry.plugged().items()]
        with formatter.section("Commands"):
            formatter.write_dl(lines)
