"""A process that runs a trial of the small learner until it is finished, or killed.

Usage: run_trial.py DIRECTORY; each report is appended to DIRECTORY/reports.jsonl, as a driver's journal would.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from closed_form import CACHE, Ridge, assembly, config
from metaloom.workers.trial import Trial

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    one = config(steps=400, validate_every=20)
    trial = Trial(one, directory, cache=CACHE, assembly=assembly(one, learner=Ridge(online=True)))
    print("ready", flush=True)
    journal = os.open(directory / "reports.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while not trial.finished:
        os.write(journal, (json.dumps(trial.advance().to_json()) + "\n").encode())
