"""How a task's model predicts: which solver reads the slots."""

from dataclasses import dataclass
from typing import Annotated, Literal

from metaloom.learners.component import Component
from metaloom.learners.domains import Learned, Real
from metaloom.learners.registry import Registry

PREDICTIONS: Registry[type[Component]] = Registry("prediction")


class Prediction(Component):
    """A way to predict.

    Class attributes:
        needs_steps: Whether it reads a head that inner steps adapt.
    """

    slot = "prediction"
    needs_steps = False


@PREDICTIONS.register("linear")
class LinearHead(Prediction):
    """The network's own last layer, adapted by inner steps."""

    needs_steps = True


@PREDICTIONS.register("joint")
class JointHead(Prediction):
    """One head over all meta-train classes while training; a fresh one, adapted by inner steps, for a new task."""

    needs_steps = True


@dataclass(frozen=True)
class PrototypesConfig:
    """The metric between a query and the class means, and what divides it before the softmax."""

    metric: Literal["euclidean", "cosine"] = "euclidean"
    temperature: Annotated[float | Learned, Real(0.01, 100.0, log=True, positive=True)] = 1.0


@PREDICTIONS.register("prototypes")
class Prototypes(Prediction):
    """The softmax over negative squared distances to class means; 10 times the cosine for ``cosine``."""

    Config = PrototypesConfig
    config: PrototypesConfig


@PREDICTIONS.register("nearest_neighbour")
class NearestNeighbour(Prediction):
    """The label of the support example with the largest cosine on the raw inputs."""
