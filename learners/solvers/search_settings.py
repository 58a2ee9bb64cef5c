r"""The settings of a search as a learner: which sampler and scheduler, and what is tried first.

A task is a table of results, on which a search is simulated; its loss is the regret after a budget of trials:

    F = (f(best configuration found) - f*) / (median f - f*)

f* is the table's best value; 1 is as good as the median configuration. Nothing here is differentiated: the settings are
knobs that a search searches, and the configurations that are tried first are learned by the task source. The simulation
is done by what is registered in ``SIMULATED``, above this folder.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from metaloom.learners.domains import Int
from metaloom.learners.episode import Episode, Support
from metaloom.learners.errors import LearnerError
from metaloom.learners.modes import SEARCH
from metaloom.learners.plugins import SIMULATED as PLUGINS
from metaloom.learners.plugins import load_plugins
from metaloom.learners.registry import Registry
from metaloom.learners.solvers.amortized import AmortizedLearner, AmortizedSolver, Embedding, Outputs
from metaloom.learners.solvers.base import SOLVERS, Parts
from metaloom.learners.task_kinds import TaskKind, register_task_kind
from metaloom.learners.tensors import Tensors

SEARCHES = register_task_kind(
    TaskKind("search", losses=lambda outputs, targets: outputs.mean(-1), labelled=False, is_own=True)
)
INSPECTED = 3  # searches of one table that are drawn, from different seeds
TABLES = "tables"  # the name under which the simulation on tables is registered


class Simulated(ABC):
    """Runs searches without training; registered in ``SIMULATED``."""

    @abstractmethod
    def check(self, sampler: Mapping[str, Any], scheduler: Mapping[str, Any]) -> None:
        """Refuse a sampler or scheduler that does not exist, or has no such setting; raises BadInput."""

    @abstractmethod
    def check_task(self, task: Mapping[str, Any], settings: "SettingsOfSearchesConfig") -> None:
        """Refuse a sampler or scheduler that the task's table cannot take; raises BadInput."""

    @abstractmethod
    def regrets(self, task: Mapping[str, Any], settings: "SettingsOfSearchesConfig", seed: int) -> list[float]:
        """Return the regret of one search after each of its trials.

        Args:
            task: An entry of ``TaskShape.columns``: the ``table``, the ``budget`` of trials, the ``workers`` and the
                ``starts`` that a portfolio takes from.
            settings: Of the search.
            seed: Of the search.
        """


SIMULATIONS: Registry[Simulated] = Registry("simulation of searches")


@dataclass(frozen=True)
class SettingsOfSearchesConfig:
    """What a search section holds, and how many configurations of the portfolio are tried first.

    Attributes:
        sampler: A sampler's name, or a mapping of its ``kind`` and its settings, each fixed or searched.
        scheduler: The same for what stops trials early.
        portfolio: How many configurations of the portfolio that was learned are tried before the sampler proposes.
    """

    sampler: str | Mapping[str, Any] = "tpe"
    scheduler: str | Mapping[str, Any] = "none"
    portfolio: Annotated[int, Int(0, 50)] = 0

    def __post_init__(self) -> None:
        for name in ("sampler", "scheduler"):
            given = getattr(self, name)
            if isinstance(given, Mapping) and SEARCH in given:
                raise LearnerError(
                    f"learner.prediction.{name}: its kind is searched as {{kind: {{search: [...]}}}}; for kinds with "
                    "settings of their own search the whole prediction"
                )

    def section(self, name: str) -> dict[str, Any]:
        """Return the ``sampler`` or the ``scheduler`` as a mapping with its ``kind``."""
        given = getattr(self, name)
        settings = {"kind": given} if isinstance(given, str) else dict(given)
        return {key: _whole(value) for key, value in settings.items()}


def _whole(value: Any) -> Any:
    """Return 7 for 7.0: in a mapping of any settings a range of whole numbers is searched in steps of 1.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@SOLVERS.register("search_settings")
class SettingsOfSearches(AmortizedSolver):
    """Solves a table of results by a simulated search with these settings.

    A query is [2]: the place of its table in ``TaskShape.columns``, and the seed of the search.
    """

    reads = frozenset()
    serves = frozenset({SEARCHES.name})
    config: SettingsOfSearchesConfig

    @property
    def simulated(self) -> Simulated:
        """Return what runs the searches."""
        load_plugins(PLUGINS)
        return SIMULATIONS[TABLES]

    def learner(self, parts: Parts) -> "SettingsLearner":
        self.simulated.check(self.config.section("sampler"), self.config.section("scheduler"))
        return SettingsLearner(self, parts)

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        simulated, columns = self.simulated, self.task.columns

        def outputs(query_x: Tensor) -> Tensor:
            asked = [(int(place), int(seed)) for place, seed in query_x.tolist()]
            left = [simulated.regrets(columns[place], self.config, seed)[-1] for place, seed in asked]
            return torch.tensor(left, dtype=query_x.dtype, device=query_x.device).unsqueeze(-1)

        return outputs

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        place, seed = (int(one) for one in episode.query_x[0].tolist())
        shown = {"regrets": self.config, "regrets_of_random": SettingsOfSearchesConfig(sampler="random")}
        seeds = range(seed, seed + INSPECTED)
        return {
            name: torch.tensor(_even([self.simulated.regrets(self.task.columns[place], one, at) for at in seeds]))
            for name, one in shown.items()
        }


class SettingsLearner(AmortizedLearner):
    """The learner of settings; a bundle of it is opened without its tables."""

    solver: SettingsOfSearches

    def rehearse(self) -> None:
        """Refuse settings that one of the tables cannot take."""
        for column in self.task.columns:
            if "table" in column:
                self.solver.simulated.check_task(column, self.solver.config)


def _even(curves: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return curves of equal length: a search that had nothing left to try stays at its last regret."""
    longest = max(map(len, curves))
    return [[*curve, *[curve[-1]] * (longest - len(curve))] for curve in curves]
