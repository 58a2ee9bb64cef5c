"""An environment of gymnasium as a control task: trajectories are data that no gradient passes through.

The trajectories of one set are copies of the environment in one process, ``make_vec`` in mode ``sync``. Before they
begin, each copy is given its task's parameters, and is reset by its own seed: so they depend on these, on the actions
and on nothing else. The copies are kept for the next set.
"""

import json
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaloom.learners.environments import ENVIRONMENTS, Environment, Step
from metaloom.workers.data.base import DataError
from metaloom.workers.errors import ExtraMissing

KEPT = 4  # sets of copies
SEEDS = 2**24  # a seed is a number in a float32 tensor, which is exact below this
_PART = re.compile(r"([A-Za-z]\w*)((?:\[-?\d+\])*)")
# what an environment has worked out of its parameters when it was made, and goes on using when they are changed
WORKED_OUT: Mapping[str, Callable[[Any], None]] = {
    "CartPoleEnv": lambda cart: _set_all(
        cart, total_mass=cart.masspole + cart.masscart, polemass_length=cart.masspole * cart.length
    )
}
_local = threading.local()


def gymnasium() -> Any:
    """Return the package; raises ExtraMissing where it is not installed."""
    try:
        import gymnasium as package
    except ImportError as missing:
        raise ExtraMissing("gymnasium is not installed: pip install 'metaloom[gymnasium]'") from missing
    return package


def place(environment: Any, path: str) -> tuple[Any, str | int]:
    """Return the object that holds a parameter such as ``m`` or ``model.body_mass[1]``, and its name or place there.

    Raises AttributeError, IndexError or TypeError where there is none.
    """
    steps: list[str | int] = []
    for one in path.split("."):
        match = _PART.fullmatch(one)
        if match is None:
            raise AttributeError(f"'{path}' is no name of an attribute")
        steps += [match[1], *map(int, re.findall(r"-?\d+", match[2]))]
    holder = environment
    for step in steps[:-1]:
        holder = _get(holder, step)
    _get(holder, steps[-1])
    return holder, steps[-1]


def parameter(environment: Any, path: str) -> Any:
    """Return the value of a parameter; raises as ``place``."""
    return _get(*place(environment, path))


def give(environment: Any, values: Mapping[str, float]) -> None:
    """Give an unwrapped environment its parameters."""
    for path, value in values.items():
        holder, step = place(environment, path)
        if isinstance(step, int):
            holder[step] = value
        else:
            setattr(holder, step, value)
    for kind in type(environment).__mro__:
        if kind.__name__ in WORKED_OUT:
            WORKED_OUT[kind.__name__](environment)


def _get(holder: Any, step: str | int) -> Any:
    return holder[step] if isinstance(step, int) else getattr(holder, step)


def _set_all(environment: Any, **values: float) -> None:
    for name, value in values.items():
        setattr(environment, name, value)


def copies_of(name: str, settings: Mapping[str, Any], count: int) -> Any:
    """Return so many copies of an environment, those of an earlier call where there are some.

    Raises DataError for an id that would have a module imported, which no experiment or bundle may ask for.
    """
    if ":" in name:
        raise DataError(
            f"tasks.environment: '{name}' names a module; have its package register the environment, under the entry "
            "point gymnasium.envs, and give the id alone"
        )
    kept: dict[Any, Any] = _local.__dict__.setdefault("copies", {})
    key = (name, json.dumps(settings, sort_keys=True), count)
    if key not in kept:
        while len(kept) >= KEPT:
            kept.pop(next(iter(kept))).close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as that there is a newer version of the environment
            kept[key] = gymnasium().make_vec(
                name, num_envs=count, vectorization_mode="sync", disable_env_checker=True, **settings
            )
    return kept[key]


@ENVIRONMENTS.register("gymnasium")
class GymnasiumEnvironment(Environment):
    """Copies of one environment; a task is the values of ``vary``, and the seed that a copy is reset by.

    Continuous actions are in units of the bounds: -1 is the least and 1 the largest, and what is beyond is cut off.
    """

    differentiable = False
    ends = True

    def __init__(
        self,
        id: str,  # as gymnasium calls it
        states: int,
        actions: int,
        horizon: int,
        discrete: bool = False,
        low: Sequence[float] = (),
        high: Sequence[float] = (),
        vary: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.id, self.settings, self.vary = id, dict(settings or {}), tuple(vary)
        self.states, self.actions, self.horizon, self.discrete = states, actions, horizon, discrete
        self.low, self.high = np.asarray(low, np.float32), np.asarray(high, np.float32)
        self._copies: Any = None

    def begin(self, start: Tensor, task: Tensor) -> Tensor:
        """Return the first observations; where a trajectory starts is in its seed, and ``start`` is not read."""
        self._copies = copies_of(self.id, self.settings, len(task))
        rows = task.detach().cpu().double().tolist()
        for one, row in zip(self._copies.envs, rows, strict=True):
            give(one.unwrapped, dict(zip(self.vary, row[:-1], strict=True)))
        observed, _ = self._copies.reset(seed=[int(row[-1]) for row in rows])
        return self._states(observed, start)

    def step(self, state: Tensor, action: Tensor, task: Tensor) -> Step:
        taken = action.detach().cpu().numpy()
        if self.discrete:
            given = taken.argmax(-1)
        else:
            given = self.low + (np.clip(taken, -1, 1) + 1) / 2 * (self.high - self.low)
            given = given.astype(np.float32).reshape(self._copies.action_space.shape)
        observed, reward, terminated, truncated, _ = self._copies.step(given)
        ended = torch.from_numpy(terminated | truncated).to(state.device)
        return Step(self._states(observed, state), torch.from_numpy(np.asarray(reward)).to(state), ended)

    def _states(self, observed: Any, like: Tensor) -> Tensor:
        return torch.from_numpy(np.array(observed).reshape(len(observed), -1)).to(like)
