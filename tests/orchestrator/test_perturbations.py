"""Perturbations on real Ray actors: the same numbers, all resources at once, and no trial that waits for ever."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from safetensors.torch import load_file

from metaloom.orchestrator import api
from metaloom.orchestrator.errors import ClusterError
from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord

if TYPE_CHECKING:
    from metaloom.orchestrator.executors.ray_cluster.connection import Connection

EPISODIC: dict[str, Any] = {
    "tasks": {"source": "sinusoid", "shots": 5, "queries": 5},
    "learner": {"method": "maml", "architecture": {"kind": "mlp", "hidden": [8]}},
    "outer": {
        "hypergradient": {"kind": "evolution_strategies", "pairs": 3},
        "steps": 4,
        "meta_batch": 2,
        "validate_every": 2,
        "validation_episodes": 4,
    },
    "search": {"trials": 2, "concurrency": 2},
}
ONLINE: dict[str, Any] = {
    "tasks": {"source": "digits"},
    "learner": {"method": "meta_weight_net", "architecture": {"kind": "mlp", "hidden": [8]}},
    "outer": {
        "hypergradient": {"kind": "persistent_evolution_strategies", "pairs": 3, "horizon": 3},
        "steps": 4,
        "validate_every": 2,
        "validation_episodes": 2,
    },
    "search": {"trials": 1},
}


class Evaluators:
    """Looks, at every event, whether a perturbation worker is among this process's descendants."""

    any = False

    def update(self, event: Event, state: SearchRecord) -> None:
        """Look now."""
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                self.any |= any("Evaluator" in word for word in child.cmdline())


def knowledge(store: Path) -> dict[str, dict[str, Any]]:
    """Return what every trial of a store has learned, by the trial's folder."""
    found = (store / "searches").rglob("meta_knowledge.safetensors")  # not MLflow's copies
    return {path.parent.name: load_file(path) for path in found}


@pytest.mark.parametrize("experiment", [EPISODIC, ONLINE], ids=["episodic", "online"])
def test_the_result_is_that_of_one_process_bit_for_bit(
    experiment: dict[str, Any], local_ray: "Connection", tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two trials at a time with one worker each do not fit into two CPUs: they run one after the other."""
    shared = {**experiment, "resources": {"perturbation_workers": 1}}
    seen = Evaluators()
    with caplog.at_level(logging.WARNING, "metaloom"):
        spread = api.search(shared, store=tmp_path / "ray", name="s", progress=seen)
    assert seen.any
    alone = api.search(experiment, store=tmp_path / "inline", name="s", executor="inline")
    assert spread.exit_code == alone.exit_code == 0, (spread.failed, alone.failed)
    assert spread.value == alone.value
    found, expected = knowledge(tmp_path / "ray"), knowledge(tmp_path / "inline")
    assert found.keys() == expected.keys() and expected
    for trial, tensors in expected.items():
        assert tensors.keys() == found[trial].keys()
        assert all(found[trial][name].equal(value) for name, value in tensors.items())
    wanted = experiment["search"].get("concurrency", 1)
    assert ("the cluster has room for 1 trials, not 2" in caplog.text) == (wanted == 2)


def test_more_workers_than_the_cluster_holds_are_refused(local_ray: "Connection", tmp_path: Path) -> None:
    crowded = {**EPISODIC, "resources": {"perturbation_workers": 2}}
    with pytest.raises(ClusterError, match=r"perturbation_workers: 2 asks for 1 cpu 3 times over.*1 or fewer"):
        api.search(crowded, store=tmp_path, name="s")


def test_in_one_process_it_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    experiment = {**EPISODIC, "resources": {"perturbation_workers": 5}}
    with caplog.at_level(logging.WARNING, "metaloom"):
        assert api.train(experiment, store=tmp_path, name="s").exit_code == 0
    assert caplog.text.count("perturbations are evaluated in this process") == 1


@pytest.fixture
def home(local_ray: "Connection") -> Iterator[Any]:
    """A trial's worker with one perturbation worker, in their placement group."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from tests.support import perturbing

    group = ray.util.placement_group([{"CPU": 1}] * 2)
    ray.get(group.ready(), timeout=60)
    strategy = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
    actor = ray.remote(perturbing.Home).options(num_cpus=1, scheduling_strategy=strategy).remote(1)
    yield actor
    ray.kill(actor)
    ray.util.remove_placement_group(group)


def test_items_are_shared_out_and_come_back_in_their_order(home: Any) -> None:
    import ray

    answers = ray.get(home.squares.remote([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert [value for value, _ in answers] == [1.0, 4.0, 9.0, 16.0, 25.0]
    assert [at_home for _, at_home in answers] == [True, True, False, False, False]
    assert [value for value, _ in ray.get(home.squares.remote([3.0]))] == [9.0]


@pytest.mark.faults
def test_the_share_of_a_lost_worker_is_computed_at_home_until_too_many_are_lost(home: Any) -> None:
    import ray

    for _ in range(3):
        answers = ray.get(home.squares.remote([1.0, 2.0, 3.0], deadly=True))
        assert answers == [(1.0, True), (4.0, True), (9.0, True)]
    again = ray.get(home.squares.remote([1.0, 2.0, 3.0]))
    assert [at_home for _, at_home in again] == [True, False, False]
    with pytest.raises(ClusterError, match="4 perturbation workers of the trial were lost"):
        ray.get(home.squares.remote([1.0, 2.0], deadly=True))


def test_an_error_elsewhere_is_the_error_itself(home: Any) -> None:
    import ray

    assert ray.get(home.refused.remote([1.0, 2.0])) == ("LearnerError", "no answer to 2")
