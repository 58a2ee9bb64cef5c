"""The stock stack: Ray Tune, OptunaSearch, ASHA and the MLflow callback, as their documentation combines them.

    python stock_stack.py FOLDER [--resume] [--tracking URI]

A trial takes eight steps of 0.3 s and reports after each, with a checkpoint. What it really computed is appended to
``FOLDER/truth.jsonl`` by the trial itself. It needs nothing of Metaloom.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS, STEP_S, TRIALS = 8, 0.3, 6


def train(config: dict[str, Any]) -> None:
    """Take the steps from the newest checkpoint on; the value falls at a rate that depends on the knob."""
    from ray import tune

    value, first = 10.0, 0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = json.loads((Path(folder) / "state.json").read_text())
            value, first = state["value"], state["step"]
    for step in range(first + 1, STEPS + 1):
        time.sleep(STEP_S)
        value *= 1 - config["rate"] + 3 * config["rate"] ** 2
        with Path(config["truth"]).open("a") as file:
            file.write(json.dumps({"trial": tune.get_context().get_trial_id(), "step": step, **config}) + "\n")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "state.json").write_text(json.dumps({"value": value, "step": step}))
            tune.report({"loss": value, "step": step}, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> int:
    """Run the search, or restore it; 1 if a trial has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--tracking")
    options = parser.parse_args()
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    folder = options.folder.absolute()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    tracking = options.tracking or f"sqlite:///{folder}/mlflow.db"
    if options.resume:
        tuner = tune.Tuner.restore(str(folder / "results" / "stock"), train, resume_errored=True)
    else:
        space = {"rate": tune.uniform(0.01, 0.3), "truth": str(folder / "truth.jsonl")}
        tuner = tune.Tuner(
            train,
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(metric="loss", mode="min", seed=3),
                scheduler=ASHAScheduler(time_attr="step", metric="loss", mode="min", max_t=STEPS, grace_period=2),
                num_samples=TRIALS,
                max_concurrent_trials=1,
            ),
            run_config=tune.RunConfig(
                name="stock",
                storage_path=str(folder / "results"),
                failure_config=tune.FailureConfig(max_failures=2),
                callbacks=[MLflowLoggerCallback(tracking_uri=tracking, experiment_name="stock")],
            ),
        )
    results = tuner.fit()
    found = [
        {"trial": one.path.rpartition("/")[2].split("_")[1], "rate": one.config["rate"], **(one.metrics or {})}
        for one in results
    ]
    (folder / "found.json").write_text(json.dumps(found, default=str))
    return 1 if results.errors else 0


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    sys.exit(main())
