"""The metrics that a search may be judged by, spelled once; the records store them under these names."""

from typing import Literal, get_args

Metric = Literal[
    "validation_accuracy",
    "validation_loss",
    "train_loss",
    "train_accuracy",
    "seconds",
    "adapt_seconds",  # per validation episode, adaptation and prediction
    "parameters",  # numbers in phi and in the inner state
]
METRICS: tuple[str, ...] = get_args(Metric)
VALIDATION_ACCURACY, VALIDATION_LOSS, TRAIN_LOSS, TRAIN_ACCURACY, SECONDS, ADAPT_SECONDS, PARAMETERS = METRICS
