"""What this machine or the cluster cannot serve is refused before anything is written, on Ray as in this process."""

import json

import pytest
import torch

from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator import api
from metaloom.orchestrator.errors import ClusterError
from metaloom.orchestrator.executors.ray_cluster import fitting
from metaloom.orchestrator.journal import Journal
from metaloom.workers.device import check_gpus
from metaloom.workers.records import names as records
from tests.support import processes

EXPERIMENT = {
    "name": "late",
    "tasks": {"source": "sinusoid", "shots": 2, "queries": 2},
    "learner": {"method": "maml", "architecture": {"kind": "mlp", "hidden": [4]}, "update": {"rate": 0.1, "steps": 1}},
    "outer": {"steps": 2, "meta_batch": 1, "validate_every": 2, "validation_episodes": 2, "test_episodes": 2},
    "search": {"trials": 2, "sampler": "random"},
}
HERE = torch.cuda.device_count()
NEEDS_GPUS = [f"resources.gpus={HERE + 1}"]
NEEDS_A_GPU = ["outer.precision=bfloat16"]
NEEDS_ONE_SOMETIMES = ["outer.precision={search: [float32, bfloat16]}"]
without_gpu = pytest.mark.skipif(HERE > 0, reason="this machine has a GPU")


@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (NEEDS_GPUS, "resources.gpus: a trial asks for"),
        pytest.param(NEEDS_A_GPU, "outer.precision: bfloat16", marks=without_gpu),
        pytest.param(NEEDS_ONE_SOMETIMES, "outer.precision: bfloat16", marks=without_gpu),
    ],
)
def test_what_this_machine_lacks_is_refused_with_nothing_written(tmp_path, executor, changes, named):
    store = tmp_path / "store"
    with pytest.raises(BadEnvironment, match=named) as refused:
        api.search(EXPERIMENT, overrides=changes, executor=executor, store=store)
    assert not store.exists()
    assert "resume" not in "".join([str(refused.value), *getattr(refused.value, "__notes__", ())])


def test_the_corrected_command_has_the_same_name(tmp_path):
    (tmp_path / "late.yaml").write_text(json.dumps(EXPERIMENT))
    command = ["-m", "metaloom", "train", str(tmp_path / "late.yaml"), "--store", str(tmp_path / "store")]
    refused = processes.run(*command, "--set", NEEDS_GPUS[0])
    assert refused.returncode == 3 and "resources.gpus" in refused.stderr and "resume" not in refused.stderr
    assert processes.run(*command, "--name", "late").returncode == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"memory": 10**16}, "resources.memory"),
        ({"perturbation_workers": 10**4}, "perturbation_workers"),
    ],
)
def test_ray_is_not_started_for_what_it_could_never_place(tmp_path, changes, named):
    resources = {**EXPERIMENT, "resources": changes}
    if "perturbation_workers" in changes:
        resources["outer"] = {**EXPERIMENT["outer"], "hypergradient": "evolution_strategies"}
    with pytest.raises(ClusterError, match=named):
        api.search(resources, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_resume_on_a_machine_without_the_gpus_does_not_lead_back_to_itself(tmp_path):
    api.search(EXPERIMENT, executor="inline", store=tmp_path, trials=1)
    with Journal(tmp_path / "searches" / "late", read_only=True) as journal:
        created = journal.events(0, 1)[0].payload
    created["experiment"]["resources"] = {"gpus": HERE + 1}  # as another machine has begun it
    folder = tmp_path / "searches" / "other"
    folder.mkdir()
    with Journal(folder) as journal:
        journal.append(records.SEARCH_CREATED, created)
    with pytest.raises(BadEnvironment, match=r"resources\.gpus") as refused:
        api.resume("other", tmp_path)
    assert not hasattr(refused.value, "__notes__")
    with Journal(folder, read_only=True) as journal:
        assert len(journal.events()) == 1


def test_gpus_are_counted_as_torch_does():
    assert check_gpus({"gpus": HERE}) == HERE
    with pytest.raises(BadEnvironment, match=f"asks for {HERE + 1}"):
        check_gpus({"gpus": HERE + 1})


NODE = {"CPU": 4.0, "memory": 8e9}


@pytest.mark.parametrize(
    ("resources", "nodes", "wrong"),
    [
        ({"cpus": 4}, [NODE], None),
        ({"cpus": 3, "perturbation_workers": 1}, [NODE, NODE], None),
        ({"cpus": 5}, [NODE, NODE], "asks for 5 cpu, but no node of the Ray cluster has more than 4; .*resources.cpus"),
        ({"gpus": 0.5}, [NODE], "asks for 0.5 gpu, but no node of the Ray cluster has more than 0; .*resources.gpus"),
        ({"memory": 9_000_000_000}, [NODE], "asks for 9 GB of memory, but .* more than 8 GB; change resources.memory"),
        ({"cpus": 3, "perturbation_workers": 2}, [NODE, NODE], "only 2 times; give perturbation_workers: 1 or fewer"),
    ],
)
def test_fitting_by_what_the_nodes_have(resources, nodes, wrong):
    if wrong is None:
        fitting.check_fits(resources, nodes)
        return
    with pytest.raises(ClusterError, match=wrong):
        fitting.check_fits(resources, nodes)
