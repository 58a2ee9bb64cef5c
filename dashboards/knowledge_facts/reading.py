"""The facts of a trial's directory, of its last state or of a snapshot, computed once for each version of the files."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metaloom.dashboards.knowledge_facts.base import FACTS, TrialKnowledge, read_knowledge
from metaloom.dashboards.knowledge_facts.panels import LearnedFacts
from metaloom.learners.errors import MetaloomError
from metaloom.learners.state import LearnerState
from metaloom.workers.bundle_reading import read_task
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.errors import CheckpointError
from metaloom.workers.records import names
from metaloom.workers.snapshots import read_snapshot

MOST_KEPT = 128  # facts of steps; each is some ten thousand numbers
_LOG = logging.getLogger("metaloom.knowledge")


@dataclass(frozen=True)
class FactsAt:
    """What was learned after ``step`` outer steps.

    Attributes:
        step: Of the meta-knowledge.
        facts: By kind; a kind of which there is nothing is absent.
        failed: What could not be computed, by kind, and why.
        shown_step: The step of the snapshot that what is shown of an episode is from, if that is another one.
        left_out: What was too large for the snapshot.
    """

    step: int
    facts: Mapping[str, LearnedFacts]
    failed: Mapping[str, str] = field(default_factory=dict)
    shown_step: int | None = None
    left_out: tuple[str, ...] = ()


class _Kept:
    """The facts that were computed last, by directory, step and version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[Path, int | None, str], FactsAt] = OrderedDict()

    def at(self, directory: Path, step: int | None) -> FactsAt:
        key = directory, step, _version(directory, step)
        with self._lock:  # the charts of a page ask at once
            if key not in self._found:
                self._found[key] = _read(directory, step)
            self._found.move_to_end(key)
            while len(self._found) > MOST_KEPT:
                self._found.popitem(last=False)
            return self._found[key]


_KEPT = _Kept()


def facts_at(directory: Path, step: int | None) -> FactsAt:
    """Return what the trial in ``directory`` had learned at the snapshot of ``step``, or in its last state for None.

    Raises CheckpointError if it has learned nothing yet, or the file is missing or damaged.
    """
    return _KEPT.at(directory.resolve(), step)


def knowledge_at(directory: Path, step: int | None) -> tuple[TrialKnowledge, FactsAt]:
    """Read what facts are computed of, and where it is from; raises CheckpointError as ``facts_at`` does."""
    if step is not None:
        found = read_snapshot(directory, step)
        task = read_task(directory / names.TASK_FILE)
        knowledge = TrialKnowledge(found.learner, task, found.phi, LearnerState(), found.shown)
        return knowledge, FactsAt(step, {}, left_out=found.left_out)
    knowledge = read_knowledge(directory)
    own = load_knowledge(directory).step
    finished = (directory / names.META_KNOWLEDGE_FILE).exists()
    if knowledge.shown or finished or not (steps := names.snapshot_steps(directory)):
        return knowledge, FactsAt(own, {})
    newest = read_snapshot(directory, steps[-1])  # a running trial: what it shows is written at its end
    knowledge = TrialKnowledge(knowledge.learner, knowledge.task, knowledge.phi, knowledge.state, newest.shown)
    return knowledge, FactsAt(own, {}, shown_step=steps[-1])


def over_steps(directory: Path, kind: str) -> dict[int, LearnedFacts]:
    """Return a kind's facts at all steps that are kept, the last state among them."""
    found = {}
    for step in (*names.snapshot_steps(directory), None):
        try:
            at = facts_at(directory, step)
        except CheckpointError as damage:  # one damaged snapshot does not hide the others
            _LOG.warning("a snapshot is left out: %s", damage)
            continue
        if kind in at.facts:
            found[at.step] = at.facts[kind]
    return found


def _read(directory: Path, step: int | None) -> FactsAt:
    knowledge, at = knowledge_at(directory, step)
    facts, failed = {}, {}
    for kind in sorted(FACTS):
        try:
            found = FACTS[kind](knowledge)
        except MetaloomError as problem:  # such as a component of a package that is not installed here
            failed[kind] = str(problem)
        except Exception as problem:  # of a package's own function: it must not hide what all others say
            _LOG.exception("facts %s of %s", kind, directory)
            failed[kind] = f"{type(problem).__name__}; the log of this command has its traceback"
        else:
            if found is not None:
                facts[kind] = found
    return FactsAt(at.step, facts, failed, at.shown_step, at.left_out)


def _version(directory: Path, step: int | None) -> str:
    """Return a text that changes when the files that are read change."""
    if step is not None:
        return _stamp(names.snapshot_path(directory, step))
    own = (names.META_KNOWLEDGE_FILE, names.EPISODE_FILE, names.CONFIG_FILE, names.CHECKPOINTS_FOLDER)
    return "-".join(_stamp(directory / name) for name in (*own, names.SNAPSHOTS_FOLDER))


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except FileNotFoundError:
        return "0"
    return f"{found.st_mtime_ns:x}.{found.st_size:x}"
