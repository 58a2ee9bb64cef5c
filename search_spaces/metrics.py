"""The metrics that a search may be judged by, spelled once; the records store them under these names."""

from typing import Literal, get_args

Metric = Literal[
    "validation_accuracy",
    "validation_loss",
    "train_loss",
    "train_accuracy",
    "seconds",
    "adapt_seconds",
    "parameters",
]
VALIDATION_ACCURACY: str
VALIDATION_LOSS: str
TRAIN_LOSS: str
TRAIN_ACCURACY: str
SECONDS: str
ADAPT_SECONDS: str  # per validation episode, adaptation and prediction
PARAMETERS: str  # numbers held by phi and by the inner state
(
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
    TRAIN_LOSS,
    TRAIN_ACCURACY,
    SECONDS,
    ADAPT_SECONDS,
    PARAMETERS,
) = get_args(Metric)
