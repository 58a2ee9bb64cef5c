#!/usr/bin/env bash
# Ray Tune 2.60.0 with MLflow 3.17.2: a restored trial gets a second MLflow run, and its first stays RUNNING.
#
# Behaviour: the driver is killed (SIGKILL) amid its only trial and restored by `Tuner.restore`, which goes on with the
#   trial. `MLflowLoggerCallback` knows the trials' runs only in the memory of the killed process, so it begins another
#   run for the trial. The first run keeps its steps, and nobody ends it.
# Right value: one run a trial, with all of its steps, and no RUNNING run when nothing runs. `Tuner.restore` promises
#   that unfinished trials are continued (docs.ray.io, ray.tune.Tuner.restore), and the callback that it logs trials;
#   callbacks may keep their state over a restore (`Callback.get_state`), which this one does not use.
# Seen: 1 trial, 2 runs: (RUNNING, 3 steps), (FINISHED, 6 steps); the restored trial began again from its first step.
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray[tune]==2.60.0' mlflow==3.17.2
cat > "$folder/tune_run.py" <<'PY'
import json, sys, tempfile, time
from pathlib import Path

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback

folder = sys.argv[1]


def train(config):
    first, checkpoint = 0, tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as path:
            first = json.loads((Path(path) / "step.json").read_text())
    for step in range(first + 1, 7):
        time.sleep(2)
        with tempfile.TemporaryDirectory() as path:
            (Path(path) / "step.json").write_text(json.dumps(step))
            tune.report({"loss": 1 / step}, checkpoint=tune.Checkpoint.from_directory(path))


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
if sys.argv[2] == "begin":
    callback = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="one")
    run = tune.RunConfig(name="one", storage_path=f"{folder}/results", callbacks=[callback])
    tuner = tune.Tuner(train, run_config=run)
else:
    tuner = tune.Tuner.restore(f"{folder}/results/one", train)
tuner.fit()
PY
export RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
"$folder/venv/bin/python" "$folder/tune_run.py" "$folder" begin > "$folder/log" 2>&1 & driver=$!
until ls "$folder"/results/one/*/checkpoint_000002 > /dev/null 2>&1; do sleep 0.2; kill -0 $driver; done
sleep 1; kill -9 $driver; wait $driver || true; sleep 3
"$folder/venv/bin/python" "$folder/tune_run.py" "$folder" restore >> "$folder/log" 2>&1
"$folder/venv/bin/python" - "$folder" <<'PY'
import sqlite3, sys

database = sqlite3.connect(f"{sys.argv[1]}/mlflow.db")
runs = database.execute("SELECT run_uuid, status FROM runs ORDER BY start_time").fetchall()
steps = [database.execute("SELECT count(*) FROM metrics WHERE key='loss' AND run_uuid=?", run[:1]).fetchone()[0] for run in runs]
print("runs of one trial (right: one, FINISHED, 6 steps):", [(status, n) for (_, status), n in zip(runs, steps)])
assert [status for _, status in runs] == ["RUNNING", "FINISHED"], "the behaviour has changed"
PY
