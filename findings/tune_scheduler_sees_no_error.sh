#!/usr/bin/env bash
# Ray Tune 2.60.0: a scheduler that asks a failed trial for its error in `on_trial_error` gets None.
#
# Behaviour: `TrialScheduler.on_trial_error` is called with the trial that has failed. There `Trial.get_error()` and
#   `Trial.get_pickled_error()` return None, as if it had not failed. After the run both return the error: it is written
#   to the trial's local folder, and read from its folder in the storage, into which it is copied later.
# Right value: the error. `on_trial_error` is documented as the notification of the error of a trial, and a scheduler
#   that treats a lost machine and a wrong setting alike has no other source.
# Seen: in on_trial_error: None; after the run: "ValueError: a wrong setting".
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray[tune]==2.60.0'
export RAY_USAGE_STATS_ENABLED=0
"$folder/venv/bin/python" - "$folder" <<'PY' 2>/dev/null
import sys

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

seen = []


class Scheduler(FIFOScheduler):
    def on_trial_error(self, tune_controller, trial):
        seen.append((trial, trial.get_error()))


class Broken(tune.Trainable):
    def step(self):
        raise ValueError("a wrong setting")


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
run = tune.RunConfig(name="broken", storage_path=f"{sys.argv[1]}/results", verbose=0)
tune.Tuner(Broken, tune_config=tune.TuneConfig(scheduler=Scheduler()), run_config=run).fit()
(trial, during), = seen
print("ray", ray.__version__)
print("in on_trial_error:", during, "; after the run:", str(trial.get_error()).strip().splitlines()[-1])
assert during is None, "the behaviour has changed"
assert "a wrong setting" in str(trial.get_error())
PY
