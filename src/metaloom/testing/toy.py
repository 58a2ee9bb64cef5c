"""A small real search: trials that write down, themselves, every step that they have really computed.

``truth.jsonl`` in a trial's directory is the ground truth that the fault tests compare the journal with.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.journal import Journal
from metaloom.workers.errors import TrialFailed
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import Report, TrialConfig

if TYPE_CHECKING:
    from metaloom.orchestrator.director import Director

TRUTH_FILE = "truth.jsonl"
STATE_FILE = "state.json"
STEPS, EVERY, EPISODES = 9, 1, 8
HANGS_AT = 3  # the step that a trial never ends in so many of its attempts as ``outer.hanging`` has for it


@dataclass(frozen=True)
class Resolved:
    """What ``search_spaces.resolve`` returns, without torch."""

    learner: dict[str, Any]
    outer: dict[str, Any]
    knobs: dict[str, Any]
    tasks: dict[str, Any] = field(default_factory=dict)
    inner: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    stage: str = ""
    stages: list[dict[str, Any]] = field(default_factory=list)


class ToyTrial:
    """Moves a weight towards 0 by the knobs it is given, a report a step; every number is deterministic."""

    def __init__(self, config: TrialConfig, directory: Path) -> None:
        self._knobs, self._outer, self._directory = config.learner, config.outer, directory
        self._held: list[bytes] = []
        self._hoards = config.trial == config.outer.get("hoarder")
        self._path = directory / records.CHECKPOINTS_FOLDER / STATE_FILE
        self._path.parent.mkdir(exist_ok=True)
        state: dict[str, Any] = (
            json.loads(self._path.read_text()) if self._path.exists() else {"step": 0, "weight": 1.0, "last": None}
        )
        self.step, self._weight = int(state["step"]), float(state["weight"])
        self.last_report = None if state["last"] is None else Report.from_json(state["last"])
        self.finished = self.step >= int(self._outer["steps"])
        self._tell("opened")
        opened = sum('"opened"' in line for line in (directory / TRUTH_FILE).read_text().splitlines())
        self._hangs = opened <= self._outer.get("hanging", {}).get(str(config.trial), 0)

    def advance(self) -> Report:
        """Take steps to the next report."""
        for _ in range(int(self._outer["every"])):
            time.sleep(float(self._outer.get("seconds", 0.0)))
            self.step += 1
            self._weight -= float(self._knobs["rate"]) * self._weight
            self._weight += 1e-3 * float(self._knobs.get("width", 8))
            self._tell("step")
        while self._hangs and self.step >= HANGS_AT:
            time.sleep(60)
        if self._hoards and self.step >= 2:
            self._hoard(float(self._outer["hoard"]))
        if self.step >= int(self._outer.get("fail_at", self.step + 1)):
            raise TrialFailed(f"the loss diverged at step {self.step}")
        self.finished = self.step >= int(self._outer["steps"])
        self.last_report = self._report()
        self._save()
        return self.last_report

    def close(self) -> None:
        """Hold nothing."""

    def _hoard(self, share: float) -> None:
        """Hold so much that more than a share of the machine's memory is used, until Ray's monitor sees it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            memory = psutil.virtual_memory()
            if memory.available > (1 - share) * memory.total:
                self._held.append(b"x" * 2**27)
            else:
                time.sleep(0.05)

    def _report(self) -> Report:
        loss = abs(self._weight) if self.step < int(self._outer.get("nan_at", self.step + 1)) else float("nan")
        scores = tuple(loss + 0.01 * index for index in range(EPISODES))
        metrics = {records.VALIDATION_LOSS: loss, records.PARAMETERS: float(self._knobs.get("width", 8))}
        return Report(
            self.step, metrics, (scores[0], scores[-1]), scores, self.step * EPISODES, 0.5 * self.step, self.finished
        )

    def _save(self) -> None:
        assert self.last_report is not None
        aside = self._path.with_suffix(".aside")
        state = {"step": self.step, "weight": self._weight, "last": self.last_report.to_json()}
        aside.write_text(json.dumps(state))
        aside.replace(self._path)

    def _tell(self, what: str) -> None:
        with (self._directory / TRUTH_FILE).open("a") as truth:
            gpus = os.environ.get("CUDA_VISIBLE_DEVICES")  # what Ray gives this process of its node's
            truth.write(json.dumps({"what": what, "step": self.step, "pid": os.getpid(), "gpus": gpus}) + "\n")


def open_toy(config: TrialConfig, directory: Path) -> ToyTrial:
    """Open a toy trial."""
    return ToyTrial(config, directory)


class ToySpace:
    """Resolves a conditional space of two methods; module-level, so that workers can unpickle it.

    Args:
        outer: The outer section of every trial.
        broken: A method that cannot be put together.
    """

    def __init__(self, outer: Mapping[str, Any] | None = None, *, broken: str = "") -> None:
        self._outer = {"steps": STEPS, "every": EVERY, **(outer or {})}
        self._broken = broken

    def __call__(self, suggest: Any) -> Any:
        """Resolve by ``suggest``."""
        method = suggest.choice("learner.method", ("plain", "wide"))
        knobs: dict[str, Any] = {"learner.method": method, "rate": suggest.real("rate", 0.01, 0.9, True)}
        if method == "wide":
            knobs["wide.width"] = suggest.integer("wide.width", 8, 64, False)
        if method == self._broken:
            raise BadInput(f"method {method} cannot be put together")
        learner = {"rate": knobs["rate"], "width": knobs.get("wide.width", 8)}
        return Resolved(learner=learner, outer=dict(self._outer), knobs=knobs)


def settings(**changes: Any) -> dict[str, Any]:
    """Return a search section."""
    return {
        "trials": 6,
        "objectives": [{"metric": records.VALIDATION_LOSS, "direction": "minimize"}],
        "sampler": {"kind": "random"},
        "scheduler": {"kind": "none"},
        **changes,
    }


def create(folder: Path, *, seed: int = 0, warm_start: Sequence[Mapping[str, Any]] = (), **changes: Any) -> Journal:
    """Make the journal of a new search."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    created = {"experiment": {}, "seed": seed, "fingerprint": "", "trials": 6, "settings": settings(**changes)}
    journal.append(records.SEARCH_CREATED, {**created, "warm_start": list(warm_start)})
    return journal


def direct(folder: Path, space: ToySpace | None = None, **changes: Any) -> "Director":
    """Make a search and its Director, started."""
    from metaloom.orchestrator.director import Director  # torch: 2 s, not to be paid by every worker of Ray

    director = Director(create(folder, **changes), space or ToySpace())
    director.start()
    return director


def truth(folder: Path, trial: int) -> list[dict[str, Any]]:
    """Read what a trial has really done."""
    path = folder / "trials" / f"{trial:04d}" / TRUTH_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def outcome(director: "Director") -> dict[int, tuple[Any, ...]]:
    """Sum up what the search has come to, for comparing two searches: all but times."""
    return {
        number: (
            trial.state,
            trial.knobs,
            trial.values,
            trial.step,
            trial.reason,
            [(r.step, r.metrics, r.scores) for r in trial.reports],
        )
        for number, trial in director.state.trials.items()
    }
