"""The command ``metaloom``: its commands stand in commands_*.py; nothing heavy is imported before one runs."""

import os
import sys
from collections.abc import Callable, Sequence
from signal import Signals
from typing import Any

import typer

from metaloom.orchestrator import signals
from metaloom.orchestrator.commands import bundle as commands_bundle
from metaloom.orchestrator.commands import records as commands_records
from metaloom.orchestrator.commands import search as commands_search
from metaloom.orchestrator.commands import tools as commands_tools

COMMANDS: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    (
        commands_search.search,
        (
            "metaloom search default --trials 12",
            "metaloom search my.yaml --name first --set learner.update.rate=search",
        ),
    ),
    (commands_search.train, ("metaloom train sinusoid-maml --set outer.steps=2000 --name sine",)),
    (commands_search.resume, ("metaloom resume first",)),
    (commands_records.runs, ("metaloom runs",)),
    (commands_records.show, ("metaloom show first", "metaloom show first --json")),
    (
        commands_records.episodes,
        ("metaloom episodes first --phase validation --where 'accuracy_after > 0.9 and trial in [0, 3]'",),
    ),
    (commands_bundle.evaluate, ("metaloom evaluate first --episodes 600",)),
    (commands_bundle.export, ("metaloom export first --trial best --out first-bundle",)),
    (commands_bundle.adapt, ("metaloom adapt first-bundle --support letters/support --query letters/query",)),
    (commands_tools.check, ("metaloom check sinusoid-meta-sgd",)),
    (commands_tools.ui, ("metaloom ui --port 5001 --no-browser",)),
    (commands_tools.doctor, ("metaloom doctor",)),
    (commands_tools.presets, ("metaloom presets",)),
    (commands_tools.schema, ("metaloom schema > experiment.schema.json",)),
    (commands_records.sync, ("metaloom sync first",)),
)


def build_app() -> typer.Typer:
    """Put the commands together."""
    app = typer.Typer(
        help="Meta-optimization: every piece of meta-knowledge is fixed, searched or learned, by one word.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # rich's own help costs 0.2 s, and does not keep an example's lines
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command, examples in COMMANDS:
        app.command(epilog="\b\nExample:\n" + "\n".join(f"  {line}" for line in examples))(command)

    @app.callback(epilog="\b\nExample:\n  metaloom search default")
    def options(
        debug: bool = typer.Option(False, "--debug", help="Show the stack of an error; at any place of the line."),
    ) -> None:
        """Meta-optimization: every piece of meta-knowledge is fixed, searched or learned, by one word."""

    return app


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
        return _told(error, as_json=as_json)


def _interrupted(number: Signals, *, as_json: bool) -> int:
    """Say which signal has ended the command before it had its answer; return the exit code."""
    import json

    text, code = f"interrupted by {number.name}", 128 + number
    print(f"metaloom: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": text, "exit_code": code}))
    return code


def _refused(error: typer.TyperException, arguments: Sequence[str]) -> int:
    """Print what is wrong with the command line itself; the help, if it was empty."""
    import json

    text = error.format_message()
    if not arguments:
        print(text)
        return error.exit_code
    command = next((word for word in arguments if word in {one.__name__ for one, _ in COMMANDS}), "")
    print(
        f"metaloom: {text} (see: {' '.join(['metaloom', *([command] if command else []), '--help'])})", file=sys.stderr
    )
    if "--json" in arguments:
        print(json.dumps({"error": text, "exit_code": error.exit_code}))
    return error.exit_code


def _told(error: Exception, *, as_json: bool) -> int:
    """Print an error for its reader: what a user can act on as it is, anything else with a way to report it."""
    import json

    from metaloom.learners.errors import MetaloomError

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
