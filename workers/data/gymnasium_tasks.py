"""Environments of gymnasium whose parameters differ from task to task: masses, lengths, forces."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.random import Generator

from metaloom.learners.domains import Bounds, Int
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.errors import unknown
from metaloom.learners.solvers.control import CONTROL
from metaloom.search_spaces.sections.tasks import Queries, TaskSettings
from metaloom.workers.data.base import SOURCES, DataError
from metaloom.workers.data.generated import Generated, halves
from metaloom.workers.data.gymnasium_environment import (
    SEEDS,
    GymnasiumEnvironment,
    copies_of,
    give,
    gymnasium,
    parameter,
)
from metaloom.workers.data.navigation import Trajectories

LONGEST = 200  # steps, where an environment has no limit of its own
PROBED = 20  # steps in which a parameter has to show


@dataclass(frozen=True)
class GymnasiumTasks(TaskSettings):
    """An environment of gymnasium; each task has other values of the parameters that vary.

    Attributes:
        environment: Its id, such as ``Pendulum-v1``.
        vary: What differs from task to task: the name of a number of the environment, such as ``m`` or
            ``model.body_mass[1]``, to the least and the largest value, between which it is uniform.
        settings: What the environment is made with, by name.
        shots: Trajectories of an inner step.
        queries: Trajectories that the policy is judged by.
        horizon: Steps of a trajectory; null is the environment's own limit, or 200.
    """

    task_kind: ClassVar[str] = CONTROL.name
    environment: str
    vary: Mapping[str, Any]
    settings: Mapping[str, Any] | None = None
    shots: Trajectories = 20
    queries: Queries = 20
    horizon: Annotated[int | None, Int(1, 1000), Bounds(at_least=1)] = None


@SOURCES.register("gymnasium")
class GymnasiumSource(Generated):
    """Tasks of one environment, for policies that find out by their rewards how it behaves.

    A trajectory is reset by a seed of its own, which is the last number of its task, after the parameters. Support and
    query have the same parameters and other seeds. The learner computes the trajectories.
    """

    name = "gymnasium"
    Config = GymnasiumTasks
    packages = ("gymnasium",)

    def checked(self, config: GymnasiumTasks) -> TaskShape:
        copies, settings = _opened(config), dict(config.settings or {})
        space = copies.single_action_space
        kinds = gymnasium().spaces
        facts: dict[str, Any] = {"id": config.environment, "settings": settings, "vary": list(config.vary)}
        limit = copies.envs[0].spec.max_episode_steps if copies.envs[0].spec else None
        facts["horizon"] = config.horizon or limit or LONGEST
        if not isinstance(copies.single_observation_space, kinds.Box):
            raise DataError(f"tasks.environment: {config.environment} is observed by no array of numbers")
        facts["states"] = int(np.prod(copies.single_observation_space.shape))
        if isinstance(space, kinds.Discrete) and space.start == 0:
            facts |= {"actions": int(space.n), "discrete": True}
        elif isinstance(space, kinds.Box) and np.isfinite([space.low, space.high]).all():
            low, high = (one.flatten().tolist() for one in (space.low, space.high))
            facts |= {"actions": len(low), "low": low, "high": high}
        else:
            wanted = "numbers within bounds, or one of several from 0"
            raise DataError(f"tasks.environment: the actions of {config.environment} ({space}) are not {wanted}")
        return TaskShape(
            config.task_kind,
            (facts["states"],),
            facts["actions"],
            environment="gymnasium",
            environment_settings=facts,
            parameters=(*config.vary, "seed"),
        )

    def draw(self, generator: Generator) -> Episode:
        """Draw the parameters, and the seeds of the trajectories."""
        count, ranges = self.config.shots + self.config.queries, self.config.vary.values()
        values = [generator.uniform(*bounds) for bounds in ranges]
        seeds = generator.choice(SEEDS, count, replace=False) if count else np.empty(0)
        task = torch.tensor([[*values, float(seed)] for seed in seeds], dtype=torch.float32)
        start = GymnasiumEnvironment(**self.shape.environment_settings).begin(torch.zeros(count, 1), task)
        return halves(start, task, self.config.shots)


def _opened(config: GymnasiumTasks) -> Any:
    """Return a copy of the environment; raises DataError for one that there is not, or for parameters it has not."""
    package, settings = gymnasium(), dict(config.settings or {})
    try:
        copies = copies_of(config.environment, settings, 1)
    except (package.error.Error, ImportError, TypeError, ValueError) as problem:
        field = "settings" if settings and isinstance(problem, TypeError) else "environment"
        raise DataError(f"tasks.{field}: {config.environment}: {problem}") from problem
    inner = copies.envs[0].unwrapped
    if not config.vary:
        raise DataError(
            f"tasks.vary: name what differs from task to task (of {config.environment}: {', '.join(_numbers(inner))})"
        )
    for name, bounds in config.vary.items():
        _check_range(name, bounds)
        try:
            value = parameter(inner, name)
        except (AttributeError, IndexError, TypeError) as problem:
            raise DataError(f"tasks.vary: {unknown('number of the environment', name, _numbers(inner))}") from problem
        if isinstance(value, bool) or not np.isscalar(value) or not isinstance(value, int | float | np.number):
            raise DataError(f"tasks.vary.{name}: it is {value!r} in {config.environment}, which is not one number")
        _check_effect(config, copies, name, float(value))
    return copies


def _numbers(environment: Any) -> list[str]:
    own = {name: value for name, value in vars(environment).items() if not name.startswith("_")}
    return sorted(name for name, value in own.items() if isinstance(value, int | float) and not isinstance(value, bool))


def _check_range(name: str, bounds: Any) -> None:
    numbers = isinstance(bounds, list | tuple) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and np.isfinite(one) for one in bounds
    )
    if not (numbers and len(bounds) == 2 and bounds[0] < bounds[1]):
        raise DataError(f"tasks.vary.{name}: give the least and the largest value, such as [0.5, 1.5], not {bounds!r}")


def _check_effect(config: GymnasiumTasks, copies: Any, name: str, own: float) -> None:
    """Refuse a parameter that changes nothing of a trajectory."""
    seen = []
    for value in config.vary[name]:
        give(copies.envs[0].unwrapped, {name: value})
        try:
            seen.append(_probe(copies))
        except Exception as problem:  # whatever an environment's own code raises
            raise DataError(
                f"tasks.vary.{name}: at {value} a step of {config.environment} fails ({problem})"
            ) from problem
        finally:
            give(copies.envs[0].unwrapped, {name: own})
    if all(np.array_equal(one, other) for one, other in zip(*seen, strict=True)):
        ends = " and ".join(f"{one:g}" for one in config.vary[name])
        where = f"tasks.vary.{name}: {config.environment} behaves the same at {ends}"
        raise DataError(f"{where} in {PROBED} steps; it may read this number only when it is made")


def _probe(copies: Any) -> list[Any]:
    copies.action_space.seed(0)
    observed, _ = copies.reset(seed=[0])
    seen = [observed.copy()]
    for _ in range(PROBED):
        observed, reward, *_ = copies.step(copies.action_space.sample())
        seen += [observed.copy(), np.array(reward)]
    return seen
