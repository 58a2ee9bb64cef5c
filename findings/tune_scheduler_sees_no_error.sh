#!/usr/bin/env bash
# Ray Tune 2.60.0: a scheduler that is told of a trial's error cannot see it; later `Trial.get_error` returns a text.
#
# Behaviour: `trial.get_error()` is None in `TrialScheduler.on_trial_error(controller, trial)`: it reads a file of the
#   trial's results that is not there yet. After the run it returns a str.
# Right value: the error. The hook is a "notification for the error of trial" (its docstring), and `Trial.get_error` is
#   annotated `Optional[TuneError]`, and "returns the error text file trace as a TuneError object" (its docstring). A
#   scheduler that treats errors of a setting (leave that region) unlike errors of a machine (try again) needs it there.
# Seen: "in the hook: None", "after the run: str"; the result of the run has the error, of the right class.
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray[tune]==2.60.0'
cat > "$folder/look.py" <<'PY'
import sys

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

seen = []


class Looking(FIFOScheduler):
    def on_trial_error(self, controller, trial):
        seen.append((trial, trial.get_error()))
        super().on_trial_error(controller, trial)


def train(config):
    raise ValueError("a wrong setting")


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
run = tune.RunConfig(name="one", storage_path=f"{sys.argv[1]}/results")
results = tune.Tuner(train, tune_config=tune.TuneConfig(scheduler=Looking()), run_config=run).fit()
(trial, in_hook), = seen
after = trial.get_error()
print("in the hook:", repr(in_hook))
print("after the run:", type(after).__name__)
assert in_hook is None, "the hook sees the error now"
assert type(after) is str and "a wrong setting" in after, "what get_error returns has changed"
assert isinstance(results.errors[0], ValueError), "the result's error has changed"
PY
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" "$folder/look.py" "$folder" 2> "$folder/log" || { tail -5 "$folder/log"; exit 1; }
