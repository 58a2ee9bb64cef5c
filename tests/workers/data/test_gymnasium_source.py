"""Environments of gymnasium as tasks: what varies reaches the physics, and trajectories depend on nothing else."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from metaloom.learners.base import Learner
from metaloom.learners.environments import make_environment
from metaloom.learners.episode import Episode
from metaloom.testing import TaskSourceContract
from metaloom.testing.problems import built, seeded
from metaloom.workers.checking import check_hypergradient
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.base import Source
from metaloom.workers.data.gymnasium_environment import SEEDS
from metaloom.workers.errors import ExtraMissing

pytest.importorskip("gymnasium", reason="the extra metaloom[gymnasium] is not installed")
PENDULUM: dict[str, Any] = {"environment": "Pendulum-v1", "vary": {"m": [0.5, 1.5], "l": [0.7, 1.3]}}
CART: dict[str, Any] = {"environment": "CartPole-v1", "vary": {"masspole": [0.05, 1.0]}}
SMALL: dict[str, Any] = {"shots": 3, "queries": 4, "horizon": 6}


def opened(tasks: dict[str, Any]) -> Source:
    return open_source({"source": "gymnasium", **SMALL, **tasks}, seed=0, cache=Path("unused"))


def learner(source: Source, estimator: str = "unroll") -> Learner:
    slots = {
        "architecture": {"kind": "mlp", "hidden": [4], "activation": "tanh"},
        "initialization": {"kind": "learned"},
        "update": {"rate": 0.3, "steps": 2},
    }
    return built(slots, source.shape, estimator=estimator)


class TestGymnasium(TaskSourceContract):
    rows = {"gymnasium": {**PENDULUM, **SMALL}}


def test_the_shape_says_what_a_policy_sees_and_does() -> None:
    pendulum, cart = opened({**PENDULUM, "horizon": None}).shape, opened(CART).shape
    assert (pendulum.inputs, pendulum.outputs, pendulum.parameters) == ((3,), 1, ("m", "l", "seed"))
    assert (cart.inputs, cart.outputs, cart.parameters) == ((4,), 2, ("masspole", "seed"))
    assert pendulum.environment_settings["horizon"] == 200 and cart.environment_settings["discrete"]


def test_a_step_of_the_pendulum_is_its_equation() -> None:
    """theta'' = 3 g / (2 l) sin theta + 3 / (m l^2) u, in steps of 0.05."""
    source = opened(PENDULUM)
    environment, task = make_environment(source.shape), torch.tensor([[0.6, 1.2, 5.0], [1.4, 0.8, 5.0]])
    state = environment.begin(torch.zeros(2, 3), task)
    assert torch.equal(state[0], state[1])  # one seed, one start
    after = environment.step(state, torch.tensor([[0.5], [0.5]]), task).state
    angle, (mass, length) = torch.atan2(state[:, 1], state[:, 0]), (task[:, 0], task[:, 1])
    speed = state[:, 2] + 0.05 * (15 / length * angle.sin() + 3 / (mass * length**2) * 2 * 0.5)
    torch.testing.assert_close(after[:, 2], speed)


def test_a_heavier_pole_makes_the_whole_cart_heavier() -> None:
    """The environment keeps the sum of its masses; one that is changed alone would leave it as it was."""
    source = opened(CART)
    environment, task = make_environment(source.shape), torch.tensor([[0.1, 3.0], [1.0, 3.0]])
    state = environment.begin(torch.zeros(2, 4), task)
    after = environment.step(state, torch.tensor([[0.0, 1.0], [0.0, 1.0]]), task).state
    _, speed, angle, turning = state[0].double().tolist()
    sine, cosine = torch.tensor(angle).double().sin(), torch.tensor(angle).double().cos()
    for row, mass in enumerate((0.1, 1.0)):
        whole = 1.0 + mass
        push = (10 + mass * 0.5 * turning**2 * sine) / whole
        bend = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - mass * cosine**2 / whole))
        assert float(after[row, 1]) == pytest.approx(float(speed + 0.02 * (push - mass * 0.5 * bend * cosine / whole)))


def test_an_ended_trajectory_earns_nothing_more() -> None:
    source = opened({**CART, "horizon": 60})
    found: Any = learner(source)
    episode = source.episode("train", 0).episode
    phi = found.init(seeded(0))
    drawn = found.slots.draw(phi, episode, 2, seeded(1), training=True)
    path = found.loop.support_path(phi, found._start_of_episode(phi, found.begin(phi, seeded(0))).theta, drawn, 0)
    lengths = path.active.sum(1)
    assert lengths.max() < 60 and torch.equal(path.rewards.sum(1), lengths)


@pytest.mark.parametrize("tasks", [PENDULUM, CART], ids=["pendulum", "cart-pole"])
def test_the_surrogate_is_differentiated_exactly(tasks: dict[str, Any]) -> None:
    source = opened(tasks)
    checked = check_hypergradient(learner(source), source, seed=0)
    assert max(one.relative_error for one in checked.knobs.values()) < 1e-6


def test_equal_seeds_give_equal_steps_whatever_ran_before() -> None:
    source = opened(CART)
    found = learner(source)
    phi = found.init(seeded(0))
    episodes = [source.episode("train", index).episode for index in range(2)]
    first = found.meta_step(phi, found.begin(phi, seeded(0)), episodes, seeded(1))
    learner(opened(PENDULUM))
    found.evaluate(phi, found.begin(phi, seeded(0)), source.episode("test", 4).episode, seeded(3))
    again = learner(source).meta_step(phi, found.begin(phi, seeded(0)), episodes, seeded(1))
    assert first.loss == again.loss and all(torch.equal(first.gradient[n], again.gradient[n]) for n in phi)


def test_an_adapted_policy_depends_on_its_environment() -> None:
    source = opened(PENDULUM)
    found = learner(source)
    phi, answers = found.init(seeded(0)), []
    state = found.begin(phi, seeded(0))
    for mass in (0.5, 1.5):
        episode: Episode = source.episode("test", 0).episode
        episode.support.y[:, 0] = mass
        answers.append(found.adapt(phi, state, episode.support, seeded(1)).predict(episode.query_x))
    assert not torch.equal(*answers)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"environment": "Pendulum-v9"}, r"tasks.environment: Pendulum-v9: .*v1"),
        ({"environment": "os:Pendulum-v1"}, r"tasks.environment: 'os:Pendulum-v1' names a module"),
        ({"vary": {}}, r"tasks.vary: name what differs .*dt, g, l, m"),
        ({"vary": {"mass": [0.5, 1.5]}}, r"tasks.vary: no number of the environment is named 'mass'.*dt, g, l, m"),
        ({"vary": {"m": [1.5, 0.5]}}, r"tasks.vary.m: give the least and the largest value, such as \[0.5, 1.5\]"),
        ({"vary": {"isopen": [0, 1]}}, r"tasks.vary.isopen: it is True in Pendulum-v1, which is not one number"),
        ({"vary": {"screen_dim": [400, 500]}}, r"tasks.vary.screen_dim: .*behaves the same at 400 and 500"),
        ({"settings": {"mass": 2}}, r"tasks.settings: Pendulum-v1: .*mass"),
    ],
)
def test_what_an_environment_has_not_is_refused(tasks: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened({**PENDULUM, **tasks})


def test_forward_mode_is_refused_by_name() -> None:
    with pytest.raises(Exception, match=r"outer.hypergradient: forward runs .*learner.loss cannot"):
        learner(opened(PENDULUM), "forward")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'metaloom\[gymnasium\]'"):
        opened({**PENDULUM, "horizon": 7})


def test_seeds_are_exact_numbers() -> None:
    task = opened(PENDULUM).episode("train", 1).episode.support_y
    assert task.dtype == torch.float32 and bool((task[:, -1] == task[:, -1].round()).all())
    assert float(task[:, -1].min()) >= 0 and float(task[:, -1].max()) < SEEDS and len(set(task[:, -1].tolist())) == 3
