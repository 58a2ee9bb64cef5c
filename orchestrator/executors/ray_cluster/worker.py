"""Tune's trainable in a worker: one object holds one trial after another."""

import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import tune

from metaloom.orchestrator.executors.hosting import OpenTrial, TrialHost
from metaloom.orchestrator.executors.ray_cluster.adapter import ASSIGNMENT
from metaloom.orchestrator.executors.ray_cluster.placement import bundle, helpers
from metaloom.orchestrator.messages import Assignment
from metaloom.workers.records.trial import TrialRunner

MESSAGE, ACTOR = "message", "actor"
IDLE_S = 0.05


def trainable(open_trial: OpenTrial, resources: Mapping[str, Any]) -> type[tune.Trainable]:
    """Return the class of the object in each of Tune's workers."""

    class MetaloomTrial(tune.Trainable):  # type: ignore[misc]
        """Hosts a trial in a worker."""

        def setup(self, config: dict[str, Any]) -> None:
            """Take the first trial."""
            self._host = TrialHost(_spreading(open_trial, resources) if helpers(resources) else open_trial)
            self._actor = str(ray.get_runtime_context().get_actor_id())
            self._begin(config)

        def step(self) -> dict[str, Any]:
            """Advance to the next report or failure."""
            if not self._assigned:
                time.sleep(IDLE_S)
                return {MESSAGE: "", ACTOR: self._actor}
            return {MESSAGE: json.dumps(self._host.step().to_json()), ACTOR: self._actor}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            """Take another trial, in the same process."""
            self._begin(new_config)
            return True

        def cleanup(self) -> None:
            """Release the last trial."""
            self._host.close()

        def _begin(self, config: Mapping[str, Any]) -> None:
            self._assigned = bool(config[ASSIGNMENT])
            if self._assigned:
                self._host.begin(Assignment.from_json(json.loads(config[ASSIGNMENT])))
            else:
                self._host.close()

    return MetaloomTrial


def _spreading(open_trial: Callable[..., TrialRunner], resources: Mapping[str, Any]) -> OpenTrial:
    """Let the trials of one worker distribute their perturbations."""
    from metaloom.orchestrator.executors.ray_cluster.perturbations import (
        PerturbationWorkers,  # torch, which the driver does without
    )

    return functools.partial(open_trial, spread=PerturbationWorkers(resources, bundle(resources)))
