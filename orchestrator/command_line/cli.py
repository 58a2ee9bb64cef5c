"""The command line ``metaloom``: runs one command, and turns errors and signals into messages and exit codes."""

import json
import os
import sys
from collections.abc import Sequence
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
        rich_markup_mode=None,  # rich's help costs 0.2 s, and does not keep the lines of an example
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )

    @app.callback(help=HELP, epilog=examples_text("metaloom search default"))
    def options(
        debug: bool = typer.Option(False, "--debug", help="Show the stack of an error; anywhere in the line."),
    ) -> None:
        """Accept the options before a command; ``main`` reads --debug anywhere."""

    return get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
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
        return _fail(f"interrupted by {ended.number.name}", 128 + ended.number, as_json=as_json)
    except BrokenPipeError:
        # The reader of our output has closed the pipe, as head does: send Python's final flush to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        return _report_error(error, as_json=as_json)


def _fail(text: str, code: int, *, as_json: bool, hint: str = "") -> int:
    """Print an error, on stdout too with ``as_json``; return the exit code."""
    print(f"metaloom: {text}{hint}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": text, "exit_code": code}))
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


def _report_error(error: Exception, *, as_json: bool) -> int:
    """Print the message of a MetaloomError, or of an unexpected error how to see its stack; return the exit code."""
    if isinstance(error, MetaloomError):
        return _fail("\n".join([str(error), *getattr(error, "__notes__", ())]), error.exit_code, as_json=as_json)
    text = f"unexpected {type(error).__name__}: {error}\n(the stack: the same command with --debug)"
    return _fail(text, 1, as_json=as_json)


if __name__ == "__main__":
    main()
