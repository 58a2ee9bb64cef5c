#!/usr/bin/env bash
# optuna-dashboard 0.21.0 beside Optuna 5.0.0: its best trial may be one that breaks a constraint.
#
# Behaviour: trials say by Optuna 5's Trial.set_constraint(name, value) how far they break a constraint; a value above 0
#   is infeasible. optuna-dashboard, which asks for optuna>=3.6, shows such trials without constraints, and its
#   "best_trials" are chosen as if there were none. Optuna's own study.best_trial leaves infeasible trials out.
# Right value: best trial 1, and the constraint of each trial. Source: Optuna 5.0, documentation of Trial.set_constraint
#   (feasible is what has no value above 0) and of Study.best_trial (the best of the feasible ones).
# Seen: best trial 0, constraints [] for both trials.
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optuna==5.0.0 optuna-dashboard==0.21.0
"$folder/venv/bin/python" - <<'PY'
import io
import json
from importlib import metadata
from wsgiref.util import setup_testing_defaults

import optuna
from optuna_dashboard import wsgi

optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = optuna.storages.InMemoryStorage()
study = optuna.create_study(storage=storage, direction="minimize")


def objective(trial: optuna.Trial) -> float:
    broken = trial.number == 0
    trial.set_constraint("memory", 1.0 if broken else -1.0)
    return 0.0 if broken else 5.0


study.optimize(objective, n_trials=2)
environ = {"PATH_INFO": "/api/studies/0", "QUERY_STRING": "after=0", "wsgi.input": io.BytesIO()}
setup_testing_defaults(environ)
answer = json.loads(b"".join(wsgi(storage)(environ, lambda *_: None)))
best = [trial["number"] for trial in answer["best_trials"]]
shown = [trial["constraints"] for trial in answer["trials"]]
print("optuna", metadata.version("optuna"), "best:", study.best_trial.number)
print("optuna-dashboard", metadata.version("optuna-dashboard"), "best:", best, "constraints:", shown, "(right: [1])")
assert study.best_trial.number == 1
assert best == [0] and shown == [[], []], "the behaviour has changed"
PY
