"""The outer loop's settings, declared once: the experiment's schema, the trial and the learner all read them here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import check_values, make_config

HYPERGRADIENT = "hypergradient"
OLD_NAMES = {"tasks": "meta_batch"}  # as settings were called until version 0.1, and as stored searches have them


@dataclass(frozen=True)
class OuterConfig:
    """The outer loop; ``hypergradient`` is a component of its own and stands beside these.

    Attributes:
        steps: Outer steps.
        meta_batch: Episodes per outer step.
        optimizer: What moves the meta-knowledge.
        rate: The optimizer's rate, before the schedule.
        schedule: The rate over the outer steps: constant, or down to 0 along a cosine or a line.
        clip: Largest global norm of the hypergradient; null does not clip.
        weight_decay: Added to the clipped hypergradient times phi, before the optimizer (L2, as torch's Adam).
        validate_every: Outer steps from one validation to the next.
        validation_episodes: Meta-validation episodes, the same every time; at least 2, for an interval.
        test_episodes: Episodes of the final test; at least 2.
        patience: Validations without improvement before stopping early; null never stops early.
        precision: ``bfloat16`` is mixed precision, on a GPU only.
        strategy: How the episodes of a batch are executed.
        retrain_steps: Steps of retraining a discretized architecture (``cells``) before it is scored.
        keep: End with the meta-knowledge that validated best, or the last; null is best with patience, else last.
    """

    steps: Annotated[int, Int(0, 10_000_000)] = 1000
    meta_batch: Annotated[int, Int(1, 256, log=True)] = 4
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    rate: Annotated[float, Real(1e-5, 1.0, log=True, per=()), Bounds(above=0)] = 0.001
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    clip: Annotated[float | None, Real(0.1, 100.0, log=True, per=()), Bounds(above=0)] = None
    weight_decay: Annotated[float, Real(1e-6, 0.1, log=True, per=())] = 0.0
    validate_every: Annotated[int, Int(1, 10_000_000)] = 100
    validation_episodes: Annotated[int, Int(2, 100_000), Bounds(at_least=2)] = 100
    test_episodes: Annotated[int, Int(2, 1_000_000), Bounds(at_least=2)] = 600
    patience: Annotated[int | None, Int(1, 10_000)] = None
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    strategy: Literal["auto", "loop", "vmap", "traced"] = "auto"
    retrain_steps: Annotated[int, Int(0, 10_000_000)] = 0
    keep: Literal["best", "last"] | None = None

    def __post_init__(self) -> None:
        check_values(self, "outer")

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "OuterConfig":
        """Read a resolved outer section, of which the hypergradient is the learner's."""
        settings = {name: value for name, value in under_new_names(section).items() if name != HYPERGRADIENT}
        config: OuterConfig = make_config(cls, settings, "outer", "the outer loop")
        return config

    @property
    def keeps_best(self) -> bool:
        """Whether the trial ends with the meta-knowledge that validated best, not the last one."""
        return self.keep == "best" or (self.keep is None and self.patience is not None)


def under_new_names(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return an outer section under present names; raises LearnerError if one is given under both of its names."""
    for old, new in OLD_NAMES.items():
        if old in section and new in section:
            raise LearnerError(f"outer.{old}: the old name of outer.{new}, which is given too; keep {new}")
    return {OLD_NAMES.get(name, name): value for name, value in section.items()}
