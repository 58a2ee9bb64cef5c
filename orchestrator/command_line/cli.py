"""The command ``metaloom``: runs one command, and turns its errors and signals into messages and exit codes."""

import json
import os
import sys
from collections.abc import Sequence
from signal import Signals
from typing import Any

import typer
from typer.main import get_command

from metaloom.learners.errors import MetaloomError
from metaloom.orchestrator import signals
from metaloom.orchestrator.command_line import registry
from metaloom.orchestrator.command_line.group import CONTEXT, LazyGroup, examples_text

HELP = "Meta-optimization: every piece of meta-knowledge is fixed, searched or learned, by one word."


def build_app() -> Any:
    """Build the command ``metaloom``, without the modules of its commands."""
    app = typer.Typer(
        cls=LazyGroup,
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # rich's own help costs 0.2 s, and does not keep an example's lines
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )

    @app.callback(help=HELP, epilog=examples_text("metaloom search default"))
    def options(
        debug: bool = typer.Option(False, "--debug", help="Show the stack of an error; at any place of the line."),
    ) -> None:
        """Take the options that stand before a command; ``main`` reads --debug at any place."""

    return get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    sys.exit(run([argument for argument in given if argument != "--debug"], debug=debug))


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command; return its exit code. With ``debug``, its errors are raised."""
    as_json = "--json" in arguments
    try:
        with signals.raised():
            code = build_app()(arguments, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:  # a wrong command, option or argument
        return _refused(error, arguments)
    except signals.Ended as ended:
        return _interrupted(ended.number, as_json=as_json)
    except BrokenPipeError:
        # The reader of our output has left, as head does: let Python's own flush at the end go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        return _report_error(error, as_json=as_json)


def _interrupted(number: Signals, *, as_json: bool) -> int:
    """Say which signal ended the command before it had an answer; return the exit code."""
    text, code = f"interrupted by {number.name}", 128 + number
    print(f"metaloom: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": text, "exit_code": code}))
    return code


def _refused(error: typer.TyperException, arguments: Sequence[str]) -> int:
    """Print what is wrong with the command line itself; the help, if it was empty."""
    text = error.format_message()
    if not arguments:
        print(text)
        return error.exit_code
    names = registry.names()
    command = next((word for word in arguments if word in names), "")
    print(
        f"metaloom: {text} (see: {' '.join(['metaloom', *([command] if command else []), '--help'])})", file=sys.stderr
    )
    if "--json" in arguments:
        print(json.dumps({"error": text, "exit_code": error.exit_code}))
    return error.exit_code


def _report_error(error: Exception, *, as_json: bool) -> int:
    """Print an error: one that a user can act on as it is, any other with a way to report it; return the exit code."""
    if isinstance(error, MetaloomError):
        text, code = "\n".join([str(error), *getattr(error, "__notes__", ())]), error.exit_code
    else:
        text = f"unexpected {type(error).__name__}: {error}\n(the stack: the same command with --debug)"
        code = 1
    print(f"metaloom: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": text, "exit_code": code}))
    return code


if __name__ == "__main__":
    main()
