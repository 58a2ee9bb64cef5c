"""The options that all commands share, and the one way to answer, as text or JSON."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from metaloom.learners.redaction import redacted
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.store import STORE_VARIABLE

if TYPE_CHECKING:
    from rich.console import Console

with deferred():
    from metaloom.orchestrator.command_line import tables

STDOUT, STDERR = 1, 2
QUIET, USUAL, VERBOSE = -1, 0, 1
verbosity: ContextVar[int] = ContextVar("verbosity", default=USUAL)  # by -q and -v, anywhere in the line


def _find_own_code(trusted: bool) -> bool:
    """Let modules of the current folder be imported once their code is trusted, behind the installed packages."""
    if trusted and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    return trusted


TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        callback=_find_own_code,
        help="Import the class that learner.architecture.of names, from an installed package or the current folder: "
        "its code runs here.",
    ),
]
StoreOption = Annotated[
    Path, typer.Option("--store", metavar="DIR", envvar=STORE_VARIABLE, help="The folder that holds all records.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a value of the experiment, such as learner.update.rate=search, =learn or =0.4; PATH- removes one. "
        "Repeatable.",
    ),
]
ExperimentArgument = Annotated[str, typer.Argument(metavar="FILE_OR_PRESET", help="An experiment file or a preset.")]
NameOption = Annotated[str | None, typer.Option("--name", help="The search's name; by default the file's.")]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Everything random derives from it.")]
ExecutorOption = Annotated[
    str, typer.Option("--executor", metavar="ray|inline", help="On Ray, or one after another in this process.")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", metavar="RAY", help="A Ray cluster; by default Ray is started here.")
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure-cluster", help="Join a cluster that asks for no token (RAY_AUTH_MODE).")
]
ConcurrencyOption = Annotated[int | None, typer.Option("--concurrency", min=1, help="Trials at once.")]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--time-budget",
        metavar="S",
        min=0.0,
        help="After S seconds of trials start none, and stop running ones at their next report.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, show what would run, and write nothing.")
]
TrialOption = Annotated[str, typer.Option("--trial", metavar="T", help="A trial's number, or 'best'.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The search's name.")]

Screen: TypeAlias = "Console"
Render = Callable[[Screen], None]


class Answer:
    """A command's answer: a document for programs (``as_json``), a rendering for people."""

    def __init__(self, as_json: bool, stdout: int) -> None:
        self.as_json = as_json
        self._stdout = stdout

    def give(self, document: Mapping[str, Any], render: Render) -> None:
        """Print ``document`` as JSON, or let ``render`` print on the console."""
        with os.fdopen(os.dup(self._stdout), "w", encoding="utf-8") as stdout:
            if self.as_json:
                stdout.write(redacted(json.dumps(document, indent=2, allow_nan=False, default=str)) + "\n")
            else:
                render(tables.console(stdout))


class _Kept(logging.Handler):
    """Keeps metaloom's warnings, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text."""
        if (line := record.getMessage()) not in self.lines:
            self.lines.append(line)


@contextmanager
def told() -> Iterator[list[str]]:
    """Collect the warnings that metaloom logs within this context, for an answer that lists them."""
    handler, logger = _Kept(), logging.getLogger("metaloom")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


@contextmanager
def answering(as_json: bool) -> Iterator[Answer]:
    """Keep stdout for the answer; other output, such as Ray's report of a dead worker, goes to stderr.

    The file descriptor itself is redirected, for libraries and child processes too.
    """
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        with redirect_stdout(sys.stderr):
            yield Answer(as_json, kept)
    finally:
        sys.stdout.flush()
        os.dup2(kept, STDOUT)
        os.close(kept)
