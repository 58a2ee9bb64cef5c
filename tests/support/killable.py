"""A trial of the small learner, for a process that may be killed at any moment."""

import json
import os
from pathlib import Path

from metaloom.workers.trial.runner import Trial
from tests.support.closed_form import CACHE, Ridge, assembly, config


def opened(directory: Path) -> Trial:
    """Twelve validations; online, so that an inner state goes on too."""
    one = config(steps=72, validate_every=6, meta_batch=1, validation_episodes=3)
    return Trial(one, directory, cache=CACHE, assembly=assembly(one, learner=Ridge(online=True)))


def run(directory: Path) -> None:
    """Go on until the trial is finished, appending each report as a driver's journal would."""
    trial = opened(directory)
    journal = os.open(directory / "reports.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while not trial.finished:
        os.write(journal, (json.dumps(trial.advance().to_json()) + "\n").encode())
