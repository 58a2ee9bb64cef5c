"""Changes searches for the pages, by the commands of the command line: each runs in a process of its own.

So the pages do what a terminal does, with the same checks and messages, and the server needs neither torch nor Ray.
Short commands are waited for; long ones are jobs (jobs.py).
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloom.dashboards import queries
from metaloom.dashboards.pages.services import FieldProblem, Job, KnobField, Refused, WrittenBundle
from metaloom.learners.errors import BadInput
from metaloom.orchestrator import jobs, stopping
from metaloom.orchestrator.errors import SearchError
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord

WAIT_S = 300.0  # for a short command: it imports torch, and may tell MLflow
LONGEST = 10_000  # of a text that a command is given
BUNDLES_FOLDER = "bundles"  # inside the store
RUN, BUNDLE = "run", "bundle"  # kinds of job: one of each at a time
CHOICE, WHOLE = "choice", "whole number"


class LocalControl:
    """Controls the searches of a store on this machine; implements ``dashboards.pages.services.Control``.

    Args:
        store: Folder of all records.
        record: Returns the record of a search; the one of an open store reads the new events of its journal alone.
    """

    def __init__(self, store: Path, record: Callable[[str], SearchRecord]) -> None:
        self._store, self._record = store.absolute(), record
        self._knobs: dict[str, tuple[tuple[float | None, int | None], list[KnobField]]] = {}

    def stop(self, name: str) -> str:
        """Tell the process that runs a search to end as at Ctrl-C, and not to wait for it."""
        told = stopping.stop(name, store=self._store)
        again = "had been told to stop already" if told.told_before else "was told to stop"
        return f"process {told.pid} {again}: it completes its records"

    def is_stopping(self, name: str, session: int) -> bool:
        """Return whether a session of a search has been told to stop."""
        return stopping.is_stopping(queries.search_folder(self._store, name), session)

    def resume(self, name: str) -> Job:
        """Go on with a search, in a job."""
        return self._run(name, "resume")

    def extend(self, name: str, *, trials: int | None = None, time_budget_s: float | None = None) -> Job:
        """Go on with a search beyond its end, in a job."""
        given = [*(["--trials", str(trials)] if trials is not None else [])]
        given += ["--time-budget", f"{time_budget_s:g}"] if time_budget_s is not None else []
        if not given:
            raise Refused("give a number of trials, or a time budget")
        return self._run(name, "extend", *given)

    def knobs(self, name: str) -> Sequence[KnobField]:
        """Return the knobs that a configuration may set, each with the best trial's value."""
        record = self._record(name)
        best = ranking.best(record)
        of = record.created_at, None if best is None else best.number
        if name not in self._knobs or self._knobs[name][0] != of:  # reading the experiment takes seconds
            found = [KnobField(**one) for one in self._called("enqueue", name)["knobs"]]
            self._knobs[name] = of, found
        return self._knobs[name][1]

    def enqueue(self, name: str, values: Mapping[str, str]) -> str:
        """Let a search try a configuration next; values are as they are typed."""
        queries.search_folder(self._store, name)
        kinds = {knob.name: knob.kind for knob in self.knobs(name)}
        given = [f"{knob}={_typed(text, kinds.get(knob, CHOICE))}" for knob, text in values.items() if text.strip()]
        if not given:
            raise Refused("set at least one knob")
        done = self._called("enqueue", name, options=[part for one in given for part in ("--set", one)])
        return str(done["note"])

    def export(self, name: str, *, trial: int | None = None, bundle: str | None = None, verifies: bool = True) -> Job:
        """Write the bundle of a trial into the store's folder of bundles, in a job; and play its test again."""
        folder = queries.search_folder(self._store, name)
        chosen = "best" if trial is None else str(trial)
        given = bundle or f"{name}-{chosen}"
        if not records.SEARCH_NAME.fullmatch(given):
            wrong = "1 to 80 of A-Z a-z 0-9 . _ - are allowed, the first neither . nor -"
            raise Refused(f"a bundle cannot be named {given!r}", (FieldProblem("bundle", wrong),))
        path = self._bundles / given
        if path.exists():
            raise Refused(
                f"{path} exists already", (FieldProblem("bundle", "there is such a bundle; give another name"),)
            )
        export = ["export", name, "--trial", chosen, "--out", str(path), "--store", str(self._store)]
        verify = [["verify", str(path), "--store", str(self._store)]] if verifies else []
        what = f"export of {'the best trial' if trial is None else f'trial {trial}'}{' and verify' if verifies else ''}"
        return jobs.start(folder, what, export, *verify, kind=BUNDLE)

    def verify(self, name: str, bundle: str) -> Job:
        """Play the test episodes of a bundle of a search again, in a job."""
        folder = queries.search_folder(self._store, name)
        if bundle not in {one.name for one in self.bundles(name)}:
            raise Refused(f"search '{name}' has no bundle '{bundle}' in {self._bundles}")
        command = ["verify", str(self._bundles / bundle), "--store", str(self._store)]
        return jobs.start(folder, f"verify {bundle}", command, kind=BUNDLE)

    def bundles(self, name: str) -> Sequence[WrittenBundle]:
        """Return the bundles of a search that lie in the store's folder of bundles."""
        names = {name, *self._record(name).former_names}
        found = []
        for path in sorted(self._bundles.glob(f"*/{records.MANIFEST_FILE}")):
            try:
                origin = json.loads(path.read_text())["origin"]
                search, trial = str(origin["search"]), int(origin["trial"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # none of ours, or damaged: 'metaloom verify' says which
            if search in names:
                found.append(WrittenBundle(path.parent.name, trial, path.parent))
        return found

    def rename(self, name: str, new: str) -> str:
        """Rename a search."""
        self._check_free(name)
        self._called("rename", name, new)
        return f"{name} is now {new}"

    def note(self, name: str, text: str, *, trial: int | None = None) -> str:
        """Add a remark to a search or to a trial."""
        queries.search_folder(self._store, name)
        self._called("note", name, text, options=[] if trial is None else ["--trial", str(trial)])
        return "noted"

    def delete(self, name: str) -> str:
        """Delete a search, its runs in MLflow and its study in Optuna's database."""
        self._check_free(name)
        self._called("rm", name)
        return f"{name} was deleted"

    def jobs(self, name: str) -> Sequence[Job]:
        """Return the jobs of a search, the newest first."""
        return jobs.jobs(queries.search_folder(self._store, name))

    @property
    def _bundles(self) -> Path:
        return self._store / BUNDLES_FOLDER

    def _run(self, name: str, what: str, *options: str) -> Job:
        """Go on with a search that no process runs."""
        folder = queries.search_folder(self._store, name)
        record = self._record(name)
        if record.state == records.RUNNING:
            process = f"process {record.process.get('pid')} on {record.process.get('host')}"
            raise SearchError(f"search '{name}' is being run by {process}; wait for it, or stop it first")
        command = ["resume", name, *options, "--store", str(self._store)]
        return jobs.start(folder, what, command, kind=RUN)

    def _check_free(self, name: str) -> None:
        if jobs.is_busy(queries.search_folder(self._store, name)):
            raise SearchError(f"a job of search '{name}' runs; wait for it")

    def _called(self, command: str, *arguments: str, options: Sequence[str] = ()) -> dict[str, Any]:
        """Run a short command and return its document; raises Refused with its message."""
        if any(len(one) > LONGEST or "\0" in one for one in arguments):
            raise Refused(f"a text has at most {LONGEST} characters, and not the character of code 0")
        line = [command, *options, "--store", str(self._store), "--json", "--", *arguments]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "metaloom", *line],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=WAIT_S,
                check=False,
            )
            document = dict(json.loads(done.stdout))
        except subprocess.TimeoutExpired as error:
            raise BadInput(f"metaloom {command} has not ended in {WAIT_S:g} s") from error
        except ValueError as error:
            last = done.stderr.strip().splitlines()[-3:]
            raise BadInput("\n".join([f"metaloom {command} ended with exit code {done.returncode}", *last])) from error
        if "error" in document:
            found = [FieldProblem(one["place"], one["message"]) for one in document.get("problems", ())]
            raise Refused(str(document["error"]), tuple(found))
        return document


def _typed(text: str, kind: str) -> str:
    """Return a typed value as the command line reads it: an option as text, anything else as a number if it is one."""
    text = text.strip()
    if kind != CHOICE:
        try:
            return json.dumps(int(text) if kind == WHOLE else float(text), allow_nan=False)
        except ValueError:
            pass  # the command says what is allowed
    return json.dumps(text)
