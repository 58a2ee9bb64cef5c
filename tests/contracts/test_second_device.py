"""On a device that is not the CPU every method, component, estimator and strategy computes what it does on the CPU.

There is no GPU where these tests run: ``second_device`` has its rules (no tensors of two devices in one operation), so
an entry of a registry that makes a tensor on the wrong device fails here.

All runs in a process of its own, and ``second_device`` is imported there alone: torch counts its devices once, before a
process's first backward pass, so an earlier test's would leave the device unknown, and later tests would have it.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from metaloom import load_bundle
from metaloom.learners import ESTIMATORS, METHODS, Learner, build_learner
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.tensors import Tensors
from metaloom.testing.estimators import KNOWLEDGE
from metaloom.testing.methods import FEW_SHOT, learnable
from metaloom.testing.problems import IMAGES, SINGLE, SMOOTH, begun, built, episode_of, seeded
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data import open_source
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from tests.support.registry_rows import CELLS, COMPONENT_ROWS, CONV, SMALL, component_learner, method

Built = tuple[Learner, TaskShape]
# what the two round alike to: a convolution of the CPU's own kernels is another on the device
ROUNDING = 1e-9


@pytest.fixture(scope="module")
def apart() -> Iterator[Executor]:
    """Yield the process that has the second device."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield process


def second_device() -> Any:
    return importlib.import_module("tests.support.second_device")


def check_what_the_device_refuses() -> None:
    second = second_device()
    with second.available():
        one, there = torch.ones(3, device=second.DEVICE), torch.ones(3)
        for wrong in (
            lambda: one + there,
            lambda: torch.where(one > 0, one, there),
            lambda: torch.stack([one.sum(), there.sum()]),
            lambda: torch.rand(3, device=second.DEVICE, generator=torch.Generator()),
        ):
            with pytest.raises(second.MixedDevicesError):
                wrong()
        with pytest.raises(RuntimeError):
            one.numpy()
        assert (one + torch.tensor(1.0))[torch.tensor([0, 2])].cpu().tolist() == [2.0, 2.0]
        assert torch.equal((one + there.to(second.DEVICE)).cpu(), 2 * there)


def test_the_device_refuses_what_a_gpu_refuses(apart: Executor) -> None:
    apart.submit(check_what_the_device_refuses).result()


def episodes_for(learner: Learner, task: TaskShape, count: int) -> list[Episode]:
    numbers = range(1 if learner.online else count)
    can_be_learned = task.kind == "classification" or bool(task.environment)
    return [learnable(task, number) if can_be_learned else episode_of(task, number) for number in numbers]


def all_that_it_does(make: Callable[[], Built], device: torch.device, count: int) -> dict[str, Any]:
    """Take an outer step and what follows it, and return every number of it, back on the CPU."""
    learner, task = make()
    phi, state = begun(learner)
    phi, state = {name: one.to(device) for name, one in phi.items()}, state.mapped(lambda one: one.to(device))
    episodes = [one.to(device, torch.float64) for one in episodes_for(learner, task, count)]
    seen = learner.meta_step(phi, state, episodes, seeded(0))
    moved = learner.advance(phi, seen.state, episodes, seeded(0))
    first = episodes[0]
    outcome = learner.evaluate(phi, moved, first, seeded(1))
    adapted = learner.adapt(phi, moved, first.support, seeded(1)).predict(first.query_x)
    found: Tensors = {
        **{f"gradient {name}": one for name, one in seen.gradient.items()},
        **moved.moving(),  # what nothing moves is for files alone
        "adapted": adapted,
    }
    assert {one.device for one in found.values()} == {device}
    numbers = {"losses": torch.tensor(outcome.losses), "accuracies": torch.tensor(outcome.accuracies)}
    objective = torch.tensor(learner.objective(phi, state, episodes, seeded(0)))
    return {name: one.detach().cpu() for name, one in found.items()} | numbers | {"objective": objective}


def check(make: Callable[..., Built], *settings: Any, episodes: int = 1) -> None:
    cpu, device = second_device().on_both(lambda where: all_that_it_does(lambda: make(*settings), where, episodes))
    assert cpu.keys() == device.keys()
    for name, expected in cpu.items():
        torch.testing.assert_close(device[name], expected, rtol=ROUNDING, atol=ROUNDING, equal_nan=True, msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_a_method(apart: Executor, name: str) -> None:
    apart.submit(check, method, name).result()


@pytest.mark.parametrize(("slot", "kind"), COMPONENT_ROWS)
def test_a_component(apart: Executor, slot: str, kind: str) -> None:
    apart.submit(check, component_learner, slot, kind).result()


def estimated(kind: str, slot: str) -> Built:
    settings = {"architecture": SMOOTH, "update": {"rate": 0.1, "steps": 2}, **KNOWLEDGE[slot]}
    careful: dict[str, Any] = {"neumann": {"alpha": 0.05}, "conjugate_gradient": {"damping": 3.0}}
    inner = {"proximal": 1.0, "mode": "online" if ESTIMATORS[kind].online_only else "episodic"}
    return built(settings, SINGLE, inner=inner, estimator={"kind": kind, **careful.get(kind, {})}), SINGLE


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_an_estimator(apart: Executor, kind: str) -> None:
    slots = [slot for slot in ("update", *KNOWLEDGE) if slot != "architecture" and ESTIMATORS[kind].gives_signal(slot)]
    if not slots:
        pytest.skip(f"{kind} is for methods without an inner loop, which are tested above")
    apart.submit(check, estimated, kind, slots[0]).result()


def by_strategy(strategy: str, network: Mapping[str, Any]) -> Built:
    recipe, task = METHODS["maml"], FEW_SHOT if network["kind"] == SMALL["kind"] else IMAGES
    learner = {**recipe.learner, "architecture": network}
    outer = {**recipe.outer, "strategy": strategy}
    return build_learner(learner=learner, inner=recipe.inner, outer=outer, task=task), task


@pytest.mark.parametrize("network", [SMALL, CONV], ids=lambda network: str(network["kind"]))
@pytest.mark.parametrize("strategy", ["loop", "vmap", "traced"])
def test_a_strategy(apart: Executor, strategy: str, network: Mapping[str, Any]) -> None:
    apart.submit(check, by_strategy, strategy, network, episodes=2).result()


# a name: the task's settings, the learner's, and what else the outer section has
TRIALS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "episodic": ({"source": "sinusoid"}, {"method": "maml"}, {"meta_batch": 2}),
    "online": ({"source": "digits", "label_noise": 0.4}, {"method": "meta_weight_net", "architecture": SMALL}, {}),
    "retrained": ({"source": "digits"}, {"method": "darts", "architecture": CELLS}, {"retrain_steps": 2}),
    "distilled": (
        {"source": "digits"},
        {"method": "distillation", "architecture": {"kind": "linear"}, "update": {"steps": 4}},
        {},
    ),
}


def whole_trial(name: str, folder: Path, cache: Path, device: torch.device) -> dict[str, Any]:
    """Run a trial that is taken up again from its checkpoint, test it, and adapt its bundle to an episode."""
    tasks, learner, outer = TRIALS[name]
    section = {"steps": 4, "meta_batch": 1, "validate_every": 2, "validation_episodes": 2, **outer}
    config = TrialConfig("test", 0, 7, tasks, learner, outer=section)
    Trial(config, folder / "trial", cache=cache).advance()
    trial = Trial(config, folder / "trial", cache=cache)
    while not trial.finished:
        trial.advance()
    assert trial.last_report is not None
    tested = evaluate_trial(folder / "trial", cache=cache, episodes=2)
    bundle = load_bundle(write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=tested))
    episode = open_source(tasks, seed=7, cache=cache).episode("test", 0).episode
    predicted = bundle.adapt(episode.support_x.numpy(), episode.support_y.numpy()).predict(episode.query_x.numpy())
    learned = {**trial.phi, **trial.state.flat()}
    assert {one.device for one in learned.values()} == {device}
    knowledge = {leaf: one.cpu() for leaf, one in learned.items()}
    numbers = {"validated": torch.tensor(trial.last_report.scores), "tested": torch.tensor(tested.scores)}
    return knowledge | numbers | {"predicted": torch.as_tensor(predicted)}


def check_a_whole_trial(name: str, folder: Path) -> None:
    def work(device: torch.device) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("metaloom.workers.device.choose_device", lambda _: device)
            return whole_trial(name, folder / device.type, folder / "cache", device)

    cpu, device = second_device().on_both(work)
    assert cpu.keys() == device.keys()
    for leaf, expected in cpu.items():
        torch.testing.assert_close(device[leaf], expected, rtol=1e-4, atol=1e-5, equal_nan=True, msg=leaf)


@pytest.mark.parametrize("name", TRIALS)
def test_a_whole_trial(apart: Executor, name: str, tmp_path: Path) -> None:
    apart.submit(check_a_whole_trial, name, tmp_path).result()
