"""What the pages need from the orchestrator, as protocols: it implements them and lends them to the application.

The dashboards import neither Ray nor Optuna, and start no processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from metaloom.dashboards.analysis import Analysis
from metaloom.dashboards.rows import ComparisonRow
from metaloom.learners.errors import BadInput
from metaloom.workers.records import names as records

SIGNALLED = (129, 130, 143)  # exit codes of commands that a signal has ended


@dataclass(frozen=True)
class Job:
    """A command that works on a search in a process of its own, and outlives the pages.

    Attributes:
        id: Of the job, in its address.
        what: Such as ``resume``.
        search: The search that it works on.
        output: What it has printed so far.
        code: Its exit code; None while it runs, and below 0 if it was killed.
        begun: Seconds since the epoch, as ``ended``.
    """

    id: str
    what: str
    search: str
    output: str = ""
    code: int | None = None
    begun: float | None = None
    ended: float | None = None

    @property
    def state(self) -> str:
        """``running``, ``finished``, ``interrupted`` or ``failed``."""
        if self.code is None:
            return records.RUNNING
        if self.code == 0:
            return records.FINISHED
        return records.INTERRUPTED if self.code in SIGNALLED else records.FAILED


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one field of a form; ``place`` is the field."""

    place: str
    message: str


class Refused(BadInput):
    """A change that cannot be made, and what is wrong with each field."""

    def __init__(self, message: str, problems: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


@dataclass(frozen=True)
class KnobField:
    """A searched knob that a configuration may set.

    Attributes:
        kind: ``number``, ``whole number`` or ``choice``.
        range: Its values in words.
        options: Of a choice.
        low: The least number; None of a choice.
        high: The greatest number; None of a choice.
        value: That of the best trial, or its default; None where it has none under the choices made.
    """

    name: str
    kind: str
    range: str
    options: Sequence[str]
    low: float | None
    high: float | None
    value: Any


@dataclass(frozen=True)
class WrittenBundle:
    """The bundle of a trial."""

    name: str
    trial: int
    path: Path


class Control(Protocol):
    """Changes searches as the command line does. Every method raises BadInput for what cannot be done, and says why."""

    def stop(self, name: str) -> str:
        """Ask a running search to end as at Ctrl-C; return what happens now."""

    def is_stopping(self, name: str, session: int) -> bool:
        """Return whether a session of a search was asked to end."""

    def resume(self, name: str) -> Job:
        """Go on with a search."""

    def extend(self, name: str, *, trials: int | None = None, time_budget_s: float | None = None) -> Job:
        """Go on with a search beyond its present end."""

    def knobs(self, name: str) -> Sequence[KnobField]:
        """Return the knobs that a configuration of a search may set."""

    def enqueue(self, name: str, values: Mapping[str, str]) -> str:
        """Let the search try this configuration next; return what happens now."""

    def export(self, name: str, *, trial: int | None = None, bundle: str | None = None, verifies: bool = True) -> Job:
        """Write the bundle of a trial, None is the best, under a name; and play its test episodes again."""

    def verify(self, name: str, bundle: str) -> Job:
        """Play the test episodes of a bundle again."""

    def bundles(self, name: str) -> Sequence[WrittenBundle]:
        """Return the bundles of a search that were written from here."""

    def rename(self, name: str, new: str) -> str:
        """Rename a search; return what was done."""

    def note(self, name: str, text: str, *, trial: int | None = None) -> str:
        """Add a remark to a search or to a trial; return what was done."""

    def delete(self, name: str) -> str:
        """Delete a search and its runs; return what was done."""

    def jobs(self, name: str) -> Sequence[Job]:
        """Return the jobs of a search, the newest first."""


class Reports(Protocol):
    """The reports of searches as single HTML files, made in processes of their own and kept for a while."""

    def knows(self, name: str, version: str) -> bool:
        """Return whether the report of a search at a version is made, or was."""

    def made(self, name: str, version: str) -> Path | None:
        """Return the file of a search at a version; None while it is made, which the first call begins.

        Raises:
            BadInput: It could not be made.
        """


@dataclass(frozen=True)
class CompanionState:
    """A program that shows the same store in its own way.

    Attributes:
        kind: ``mlflow`` or ``optuna``.
        title: Its name for people.
        state: ``off``, ``starting``, ``running``, ``failed``, or ``missing`` if it is not installed.
        message: Why it failed, or the command that installs it.
        url: Where it is, once it runs.
        caution: Who else can read and change its records while it runs, to be put after a sentence; or empty.
    """

    kind: str
    title: str
    state: str
    message: str = ""
    url: str = ""
    caution: str = ""


class Companions(Protocol):
    """MLflow's UI and optuna-dashboard, which are started on demand and end with the pages."""

    def states(self) -> Sequence[CompanionState]:
        """Return what there is, in a fixed order."""

    def state(self, kind: str) -> CompanionState:
        """Return the state of one; raises QueryError for an unknown kind."""

    def start(self, kind: str) -> CompanionState:
        """Start one in the background, or return the running one; raises QueryError for an unknown kind."""

    def address(self, kind: str, name: str | None = None, trial: int | None = None) -> str:
        """Return the address of a search's or a trial's page in a running one; raises BadInput if it has none."""


class Comparisons(Protocol):
    """Compares trials on the same test episodes, as ``metaloom compare`` does."""

    def recorded(self, contenders: Sequence[str]) -> ComparisonRow:
        """Compare by the tests that are recorded; raises BadInput where one is missing, with the command to add it."""


@dataclass(frozen=True)
class ReplayState:
    """How far a process is that plays episodes again (``workers/replaying.py``).

    Attributes:
        state: ``running``, ``done`` or ``failed``.
        done: Episodes that it has played, of ``of``; 0 of 0 where it does not say so.
        of: How many it plays.
        result: What it has found, once it is done.
        problem: Why it failed.
    """

    state: str
    done: int = 0
    of: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


class Replays(Protocol):
    """Plays recorded episodes again, in a process of its own that has a limited time. It changes nothing."""

    def state(self, request: Mapping[str, Any]) -> ReplayState:
        """Return how far a request is; begin it if it is new. Equal requests share one process and its result."""


@dataclass(frozen=True)
class ApartAnswer:
    """The answer of a process apart from the server to a request: what the browser gets."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ApartProcess(Protocol):
    """A process that answers what needs torch or other large packages, so that the server stays small."""

    def answer(self, path: str, query: str, *, is_fragment: bool) -> ApartAnswer:
        """Return the answer to a GET request; raises BadEnvironment if the process gives none."""

    def begin(self) -> None:
        """Let the process start and import torch, because both will soon be needed."""


@dataclass(frozen=True)
class Services:
    """What the orchestrator lends; a page without its service says so."""

    control: Control | None = None
    analysis: Analysis | None = None
    companions: Companions | None = None
    comparisons: Comparisons | None = None
    replays: Replays | None = None
    reports: Reports | None = None
    apart: ApartProcess | None = None
