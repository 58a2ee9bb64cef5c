"""The command line ``metaloom``: runs one command, and turns errors and signals into messages and exit codes."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import metaloom
from metaloom.learners.errors import BadEnvironment, MetaloomError
from metaloom.learners.plugins import package_of
from metaloom.learners.redaction import clean, redacted
from metaloom.orchestrator import interruption
from metaloom.orchestrator.command_line import registry
from metaloom.orchestrator.command_line.answers import QUIET, USUAL, VERBOSE, verbosity
from metaloom.workers.durable import is_full

CONTEXT = {"help_option_names": ["-h", "--help"]}
HELP = "Meta-optimization: every piece of meta-knowledge is fixed, searched or learned, by one word."


def examples_text(*lines: str) -> str:
    """Return the examples at the end of a help, one per line."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


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
    """The group of all commands; it imports a command's module when the command is called or its help is shown."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: dict[str, Any] = dict.fromkeys(sorted(registry.names()))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None for an unknown name; errors of its module propagate."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = build_command(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands: the built-in ones with their help, those of a package with its name."""
        lines = [(name, registry.load(name).help) for name in registry.built_in()]
        lines += [(name, f"from the package {package_of(plugin)}") for name, plugin in registry.plugged().items()]
        with formatter.section("Commands"):
            formatter.write_dl(lines)


def build_app() -> Any:
    """Build the command ``metaloom``, without the modules of its commands."""
    app = typer.Typer(
        cls=LazyGroup,
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # rich's help costs 0.2 s, and does not keep the lines of an example
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )

    @app.callback(help=HELP, epilog=examples_text("metaloom search default"))
    def options(
        debug: bool = typer.Option(False, "--debug", help="Show the stack of an error; anywhere in the line."),
        quiet: bool = typer.Option(False, "-q", "--quiet", help="Show no progress; anywhere in the line."),
        verbose: bool = typer.Option(False, "-v", "--verbose", help="Show every report; anywhere in the line."),
        version: bool = typer.Option(False, "--version", help="Print the version, and end."),
    ) -> None:
        """List the options of the whole line for the help; ``run`` and ``main`` read them anywhere in it."""

    return get_command(app)


def leveled(arguments: list[str]) -> tuple[list[str], int]:
    """Return a command line without -q and -v, and the level that they set; what follows ``--`` is left as it is."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    level = USUAL
    for names, meant in ((("-q", "--quiet"), QUIET), (("-v", "--verbose"), VERBOSE)):
        level = meant if any(name in arguments[:end] for name in names) else level
    kept = [one for one in arguments[:end] if one not in ("-q", "--quiet", "-v", "--verbose")]
    return kept + arguments[end:], level


class RedactedStream:
    """A text stream that writes no secret: for what libraries print, log and warn of, and for tracebacks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text`` without its secrets."""
        return self._stream.write(redacted(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.stdout, sys.stderr = RedactedStream(sys.stdout), RedactedStream(sys.stderr)
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    sys.exit(run([argument for argument in given if argument != "--debug"], debug=debug))


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command; return its exit code. With ``debug``, its errors are raised."""
    as_json = "--json" in arguments
    arguments, level = leveled(arguments)
    if arguments[:1] == ["--version"]:
        print(f"metaloom {metaloom.__version__}")
        return 0
    verbosity.set(level)
    try:
        with interruption.raised():
            code = build_app()(arguments, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:  # a wrong command, option or argument
        return _refused(error, arguments)
    except interruption.Ended as ended:
        return _fail(f"interrupted by {ended.number.name}", 128 + ended.number, as_json=as_json)
    except BrokenPipeError:
        # The reader of our output has closed the pipe, as head does: send Python's final flush to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, MetaloomError):
            text = "\n".join([str(error), *getattr(error, "__notes__", ())])
            return _fail(text, error.exit_code, as_json=as_json, places=_places(error))
        if isinstance(error, OSError) and is_full(error):  # also of a file that a library writes, anywhere
            place = f" of {error.filename}" if error.filename else ""
            text = f"the disk{place} is full ({error.strerror}): free some space"
            return _fail(text, BadEnvironment.exit_code, as_json=as_json)
        text = f"unexpected {type(error).__name__}: {error}\n(the stack: the same command with --debug)"
        return _fail(text, 1, as_json=as_json)


def _places(error: MetaloomError) -> list[dict[str, str]]:
    """Return the place and the message of each problem of an error that lists some."""
    problems = getattr(error, "problems", ())
    return [{"place": ".".join(map(str, one.path)), "message": clean(redacted(one.message))} for one in problems]


def _fail(text: str, code: int, *, as_json: bool, hint: str = "", places: Sequence[Mapping[str, str]] = ()) -> int:
    """Print an error, on stdout too with ``as_json``; return the exit code."""
    text = clean(text)
    print(f"metaloom: {text}{hint}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": text, "exit_code": code, **({"problems": places} if places else {})}))
    return code


def _refused(error: typer.TyperException, arguments: Sequence[str]) -> int:
    """Print the error of the command line itself, or the help if the line was empty."""
    text = error.format_message()
    if not arguments:
        print(text)
        return error.exit_code
    names = registry.names()
    command = [word for word in arguments if word in names][:1]
    hint = f" (see: {' '.join(['metaloom', *command, '--help'])})"
    return _fail(text, error.exit_code, as_json="--json" in arguments, hint=hint)


if __name__ == "__main__":
    main()
