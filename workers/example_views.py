"""What a page shows of an episode's examples: images, series, texts, points of a curve, or rows of a table."""

import base64
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from metaloom.learners.networks.tokens import FIRST, PADDING, vocabulary_of
from metaloom.workers.adapted import in_target_units
from metaloom.workers.data.base import SampledEpisode, Source, TaskSource

IMAGES, SERIES, TEXTS, CURVE, ROWS = "images", "series", "texts", "curve", "rows"
MOST_COLUMNS = 12  # of a row
MOST_PLACES = 400  # of a series: of a longer one every n-th
LEAST_SIDE = 7  # of a flat image


class ExampleViews:
    """The examples of one episode of a source.

    Args:
        source: The episode's.
        tasks: The section that the source was opened with.
        sampled: The episode.
    """

    def __init__(self, source: TaskSource, tasks: Mapping[str, Any], sampled: SampledEpisode) -> None:
        self.sampled, self.shape = sampled, source.shape
        self.has_classes = self.shape.task_kind.has_classes
        self.vocabulary = ["", "(other)", *vocabulary_of(self.shape)]
        self._name = self.namer(source)
        self._brightest = type(source).brightest_of(source.shape, tasks) if isinstance(source, Source) else 0.0

    @staticmethod
    def namer(source: TaskSource) -> Callable[[int], str]:
        """Return what names a class of a source by its id."""
        return source.class_name if isinstance(source, Source) else str

    @property
    def kind(self) -> str:
        """How its examples are shown."""
        inputs = self.shape.inputs
        if vocabulary_of(self.shape):
            return TEXTS
        if (len(inputs) == 3 and inputs[0] in (1, 3)) or self._side:
            return IMAGES
        if len(inputs) == 2:
            return SERIES
        return CURVE if inputs == (1,) and not self.has_classes else ROWS

    @property
    def _side(self) -> int:
        """The side of an image whose pixels are a flat row; 0 where examples are no such rows."""
        inputs = self.shape.inputs
        side = math.isqrt(inputs[0]) if len(inputs) == 1 else 0
        return side if self._brightest and side >= LEAST_SIDE and side * side == inputs[0] else 0

    def document(self, most: int) -> dict[str, Any]:
        """Return the examples as JSON values, at most so many of the support set and of the query set."""
        episode, kind = self.sampled.episode, self.kind
        kept, asked = episode.support.kept(), episode.query_x
        ways = [self._name(one) for one in self.sampled.class_ids] if self.has_classes else []
        everything = torch.cat([kept.x.flatten(), asked.flatten()])
        ends = (float(everything.min()), float(everything.max())) if kind == IMAGES and len(everything) else (0.0, 1.0)
        ends = (0.0, 1.0) if ends[0] >= 0 and ends[1] <= 1 else ends
        return {
            "kind": kind,
            "classes": ways or [str(one) for one in range(self.shape.outputs)] if self.has_classes else [],
            "columns": self._columns() if kind == ROWS else [],
            "stretched": ends != (0.0, 1.0),
            "support": [self._shown(*one, ends) for one in zip(kept.x[:most], kept.y[:most], strict=True)],
            "queries": [self._shown(*one, ends) for one in zip(asked[:most], episode.query_y[:most], strict=True)],
            "of_support": len(kept.x),
            "of_queries": len(asked),
            "unlabelled": 0 if episode.support.unlabelled is None else len(episode.support.unlabelled),
        }

    def _columns(self) -> list[str]:
        named = list(self.shape.features) or [f"x{place}" for place in range(math.prod(self.shape.inputs))]
        return named[:MOST_COLUMNS]

    def _shown(self, x: Tensor, y: Tensor, ends: tuple[float, float]) -> dict[str, Any]:
        """Return one example: what is shown of it, and its label or targets."""
        label = int(y) if self.has_classes else None
        targets = [] if self.has_classes else in_target_units(y[None], self.shape)[0].flatten().tolist()
        return {"label": label, "targets": targets, "shown": self._content(x, ends)}

    def _content(self, x: Tensor, ends: tuple[float, float]) -> Any:
        match self.kind:
            case "texts":
                tokens = [int(one) for one in x.flatten().tolist()]
                return " ".join(self._token(one) for one in tokens if one != PADDING)
            case "images":
                return _png(x.view(1, self._side, self._side) if self._side else x, ends)
            case "series":
                every = max(1, math.ceil(x.shape[-1] / MOST_PLACES))
                return [_finite(channel) for channel in self._channels(x)[:, ::every].tolist()]
        values = x.flatten()[:MOST_COLUMNS]
        if self.shape.deviation and len(self.shape.deviation) >= len(values):
            mean, deviation = (torch.tensor(one)[: len(values)] for one in (self.shape.mean, self.shape.deviation))
            values = values * deviation.to(values) + mean.to(values)
        return _finite(values.tolist())

    def _token(self, number: int) -> str:
        return self.vocabulary[number] if FIRST - 1 <= number < len(self.vocabulary) else f"#{number}"

    def _channels(self, x: Tensor) -> Tensor:
        """Return a series' channels, NaN where it was not observed."""
        if not self.shape.observed:
            return x
        return torch.where(x[-1:] > 0, x[:-1], torch.nan)


def _finite(values: list[float]) -> list[float | None]:
    return [round(one, 6) if math.isfinite(one) else None for one in values]


def _png(x: Tensor, ends: tuple[float, float]) -> str:
    """Return an image [channels, height, width] as a PNG file in base64."""
    from PIL import Image

    low, high = ends
    grey = ((x.float() - low) / max(high - low, 1e-12)).nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    array = grey[0].numpy() if len(grey) == 1 else grey.permute(1, 2, 0).numpy()
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, "PNG", optimize=False)
    return base64.b64encode(sink.getvalue()).decode()
