"""The tasks, inner and outer sections: plain settings, any of which may be searched."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from metaloom.learners import ESTIMATORS, InnerConfig
from metaloom.learners.domains import Int, Real
from metaloom.learners.errors import LearnerError, shown
from metaloom.learners.fields import MISSING
from metaloom.learners.hypergradients.auto import AutoConfig
from metaloom.learners.plugins import TASK_SOURCES as PLUGGED_SOURCES
from metaloom.learners.plugins import load_plugins
from metaloom.learners.task_kinds import CLASSIFICATION, TASK_KINDS, TaskKind
from metaloom.search_spaces.errors import Problems
from metaloom.search_spaces.knobs.components import Catalogue, parse_component, parse_settings
from metaloom.search_spaces.reading.labels import members
from metaloom.search_spaces.reading.nodes import Fixed, Node, Place, Section
from metaloom.search_spaces.sections.tasks import TASK_SOURCES

AUTO = "auto"
HYPERGRADIENT = "hypergradient"
SOURCE = "source"


@dataclass(frozen=True)
class OuterConfig:
    """The outer loop; ``hypergradient`` is a component of its own and stands beside these.

    Attributes:
        steps: Outer steps.
        tasks: Episodes per outer step.
        optimizer: What moves the meta-knowledge.
        rate: The optimizer's rate, before the schedule.
        schedule: How the rate goes on: constant, or down to 0 along a cosine or a line.
        clip: Largest global norm of the hypergradient; null does not clip.
        weight_decay: Added to the clipped hypergradient times phi, before the optimizer (L2, as torch's Adam).
        validate_every: Outer steps from one validation to the next.
        validation_episodes: Meta-validation episodes, the same every time.
        test_episodes: Episodes of the final test.
        patience: Validations without improvement before stopping early; null never stops early.
        precision: ``bfloat16`` is mixed precision, on a GPU only.
        strategy: How the episodes of a batch are executed.
        retrain_steps: Steps of retraining a discretized architecture (``cells``) before it is scored.
        keep: End with the meta-knowledge that validated best, or the last; null is best with patience, else last.
    """

    steps: Annotated[int, Int(0, 10_000_000)] = 1000
    tasks: Annotated[int, Int(1, 256, log=True)] = 4
    optimizer: Literal["adam", "sgd"] = "adam"
    rate: Annotated[float, Real(1e-5, 1.0, log=True, per=())] = 0.001
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    clip: Annotated[float | None, Real(0.1, 100.0, log=True, per=())] = None
    weight_decay: Annotated[float, Real(1e-6, 0.1, log=True, per=())] = 0.0
    validate_every: Annotated[int, Int(1, 10_000_000)] = 100
    validation_episodes: Annotated[int, Int(2, 100_000)] = 100
    test_episodes: Annotated[int, Int(2, 1_000_000)] = 600
    patience: Annotated[int | None, Int(1, 10_000)] = None
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    strategy: Literal["auto", "loop", "vmap", "traced"] = "auto"
    retrain_steps: Annotated[int, Int(0, 10_000_000)] = 0
    keep: Literal["best", "last"] | None = None

    def __post_init__(self) -> None:
        for name in ("rate", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise LearnerError(f"outer.{name} must be above 0, got {value}")
        if not self.weight_decay >= 0:
            raise LearnerError(f"outer.weight_decay must be at least 0, got {self.weight_decay}")
        for name in ("validation_episodes", "test_episodes"):
            if getattr(self, name) < 2:
                raise LearnerError(f"outer.{name} must be at least 2, for an interval, got {getattr(self, name)}")


def task_catalogue() -> Catalogue:
    """Return the task sources, those of installed plugins among them."""
    load_plugins(PLUGGED_SOURCES)
    return Catalogue("task source", dict(TASK_SOURCES.items()), key=SOURCE)


def estimator_catalogue() -> Catalogue:
    """Return the hypergradient estimators, and ``auto``."""
    kinds = {kind: estimator.Config for kind, estimator in ESTIMATORS.items()}
    return Catalogue("hypergradient estimator", {AUTO: AutoConfig, **kinds}, fixed=AUTO)


def parse_tasks(raw: Any, place: Place, problems: Problems) -> Node:
    """Parse the tasks section: one source, the same for all trials, whose settings may be searched."""
    named = raw.get(SOURCE) if isinstance(raw, Mapping) else None
    if members(raw) is not None or members(named) is not None:
        problems.add(place.path, "the task source cannot be searched: trials on different tasks cannot be compared")
        return Fixed(None)
    return parse_component(task_catalogue(), raw, place, problems)


def task_kind(tasks: Node) -> TaskKind:
    """Return the kind of the tasks: their own field ``kind``, or the one that their source always makes."""
    if not isinstance(tasks, Section):
        return CLASSIFICATION
    kind = tasks.fields.get("kind")
    name = kind.value if isinstance(kind, Fixed) else getattr(TASK_SOURCES.get(tasks.kind), "task_kind", None)
    return TASK_KINDS.get(str(name), CLASSIFICATION)


def parse_inner(raw: Any, recipe: Mapping[str, Any], place: Place, problems: Problems) -> Node:
    """Parse the inner section over a recipe's defaults."""
    if not _is_mapping(raw, place, problems):
        return Fixed(None)
    catalogue = Catalogue("the inner loop", {"": InnerConfig}, key="")
    return parse_settings(catalogue, "", raw, recipe, place, problems)


def parse_outer(raw: Any, recipe: Mapping[str, Any], place: Place, problems: Problems) -> Node:
    """Parse the outer section over a recipe's defaults."""
    if not _is_mapping(raw, place, problems):
        return Fixed(None)
    catalogue = Catalogue("the outer loop", {"": OuterConfig}, key="", also=(HYPERGRADIENT,))
    plain = {name: value for name, value in raw.items() if name != HYPERGRADIENT}
    section = parse_settings(catalogue, "", plain, recipe, place, problems)
    default = recipe.get(HYPERGRADIENT, {})
    estimators = replace(estimator_catalogue(), recipe={"kind": default} if isinstance(default, str) else default)
    estimator = parse_component(estimators, raw.get(HYPERGRADIENT, MISSING), place.at(HYPERGRADIENT), problems)
    return replace(section, fields={**section.fields, HYPERGRADIENT: estimator})


def _is_mapping(raw: Any, place: Place, problems: Problems) -> bool:
    if not isinstance(raw, Mapping):
        problems.add(place.path, f"got {shown(raw)}; give a mapping of settings")
    return isinstance(raw, Mapping)
