"""Progress tells ends, and draws what runs."""

import io
from typing import Any

from rich.console import Console

from metaloom.orchestrator.command_line.progress import LineProgress, LiveProgress, shown_progress
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord
from tests.dashboards.conftest import report

KNOBS = {"learner": "maml", "learner[maml].update.rate": 0.25}
CONFIG = {"search": "first", "trial": 0, "seed": 0, "tasks": {}, "learner": {}, "outer": {"steps": 20}}
SUGGESTED = {"knobs": KNOBS, "config": CONFIG, "sampler": "random", "params": {}, "distributions": {}}
AIMS = [{"metric": records.VALIDATION_ACCURACY, "direction": "maximize"}]
ENDED = {"values": {records.VALIDATION_ACCURACY: 0.9}, "value": 0.9}
EVALUATION = {"metric": "accuracy", "mean": 0.875, "interval": [0.85, 0.9], "episodes": 600}
STORY: list[tuple[str, int | None, dict[str, Any]]] = [
    (records.SEARCH_CREATED, None, {"settings": {"trials": 2, "objectives": AIMS}, "seed": 0}),
    (records.SEARCH_STARTED, None, {"pid": 1, "host": "here"}),
    (records.TRIAL_SUGGESTED, 0, SUGGESTED),
    (records.TRIAL_STARTED, 0, {"attempt": 1, "worker": ""}),
    (records.TRIAL_REPORTED, 0, {"report": report(10, 0.5)}),
    (records.TRIAL_INTERRUPTED, 0, {"reason": "killed", "lost": True}),
    (records.TRIAL_WARNED, 0, {"warnings": ["checkpoint 2 is damaged", "went back to checkpoint 1, at step 10"]}),
    (records.TRIAL_REPORTED, 0, {"report": report(20, 0.9, finished=True)}),
    (records.TRIAL_FINISHED, 0, ENDED),
    (records.TRIAL_SUGGESTED, 1, {**SUGGESTED, "config": None}),
    (records.TRIAL_FAILED, 1, {"reason": "the loss is nan at step 3", "traceback": ""}),
    (records.BASELINE, None, {"method": "nearest_neighbour", "evaluation": EVALUATION}),
    (records.BEST_TESTED, None, {"trial": 0, "evaluation": EVALUATION}),
]


def follow(progress: LineProgress, story: list[tuple[str, int | None, dict[str, Any]]]) -> None:
    state = SearchRecord()
    for number, (kind, trial, payload) in enumerate(story):
        event = Event(number + 1, 100.0 + number, trial, kind, payload)
        state.apply(event)
        progress.update(event, state)


def drawn(progress: LiveProgress) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(progress)
    return out.getvalue()


def test_the_steps_of_retraining_count() -> None:
    cells = {"learner": {"architecture": {"kind": "cells"}}, "outer": {"steps": 20, "retrain_steps": 30}}
    out = io.StringIO()
    with shown_progress(Console(file=out, width=200)) as progress:
        story = [*STORY[:2], (records.TRIAL_SUGGESTED, 0, {**SUGGESTED, "config": CONFIG | cells}), *STORY[3:5]]
        follow(progress, story)
    assert out.getvalue() == "trial 0: step 10 of 50, validation_accuracy 0.5\n"


def test_lines_tell_every_end_and_few_reports() -> None:
    out = io.StringIO()
    with shown_progress(Console(file=out, width=200)) as progress:
        follow(progress, STORY)
    lines = out.getvalue().splitlines()
    assert lines == [
        "trial 0: step 10 of 20, validation_accuracy 0.5",
        "trial 0: its worker was lost (killed); it goes on from step 10, retry 1 of 2",
        "trial 0: checkpoint 2 is damaged; went back to checkpoint 1, at step 10",
        "[1/2] trial 0 finished: validation_accuracy 0.9, 20.0 s; learner=maml learner[maml].update.rate=0.25",
        "[2/2] trial 1 failed: the loss is nan at step 3",
        "baseline nearest_neighbour: test accuracy 0.8750 [0.8500, 0.9000] over 600 episodes",
        "best trial 0: test accuracy 0.8750 [0.8500, 0.9000] over 600 episodes",
    ]


def test_the_live_display_shows_what_runs_and_the_best() -> None:
    progress = LiveProgress(Console(file=io.StringIO()))
    assert "preparing the data" in drawn(progress)
    follow(progress, STORY[:5])
    text = drawn(progress)
    assert "0/2 trials" in text
    assert "trial 0  10/20  validation_accuracy 0.5  learner=maml learner[maml].update.rate=0.25" in text
    follow(progress, STORY)
    text = drawn(progress)
    assert "2/2 trials" in text
    assert "best: trial 0, validation_accuracy 0.9; testing" in text


def test_a_terminal_gets_the_live_display_and_warnings_above_it() -> None:
    import logging

    out = io.StringIO()
    with shown_progress(Console(file=out, force_terminal=True, width=120, highlight=False)) as progress:
        assert isinstance(progress, LiveProgress)
        follow(progress, STORY)
        logging.getLogger("metaloom").warning("mlflow cannot be written: %s", "[gone]")
    assert "warning: mlflow cannot be written: [gone]" in out.getvalue()
    assert not logging.getLogger("metaloom").handlers
