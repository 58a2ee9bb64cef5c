"""The embedded few-shot data: characters of many scripts, drawn from the fonts that matplotlib ships.

A class is one character, in all its faces. The drawings are made once (seconds, no
download), are the same on every machine with the same fonts, and are then memory-mapped.
"""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from metaloom.search_spaces.sections.tasks import Queries, Shots, TaskSettings, Ways
from metaloom.workers.data import glyph_drawing as drawing
from metaloom.workers.data.base import SOURCES
from metaloom.workers.data.sampler import ClassTable, FewShotSource, check_episodes, spans_of, split_classes
from metaloom.workers.data.store import Arrays, cached

VERSION = 4  # of the drawings: raise it whenever they change
VALIDATION, TEST = 0.15, 0.2  # of the characters
Spans = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class GlyphTasks(TaskSettings):
    """Characters of many scripts drawn with matplotlib's fonts: the embedded few-shot data."""

    ways: Ways = 5
    shots: Shots = 1
    queries: Queries = 15


@SOURCES.register("glyphs")
class Glyphs(FewShotSource):
    """At least 1,000 characters, 20 drawings each, 28x28."""

    name = "glyphs"
    packages = ("matplotlib", "pillow", "scipy")
    Config = GlyphTasks

    @classmethod
    def open(cls, config: GlyphTasks, *, seed: int, cache: Path) -> Self:
        """Map the drawings; draw them first if they are not there."""

        def draw() -> Arrays:
            characters = Characters()
            table = class_table(characters.spans)  # looked at before the drawing, which takes longest
            check_episodes(cls.name, table, ways=config.ways, shots=config.shots, queries=config.queries)
            return characters.draw()

        arrays = cached(cache, cls.name, {"source": cls.name, "version": VERSION}, draw)
        table = class_table(arrays.about["spans"])
        return cls(arrays, table, config, seed=seed, scale=255.0, inputs=(1, drawing.SIZE, drawing.SIZE))


def class_table(spans: Spans) -> ClassTable:
    """Divide the characters among the splits."""
    return ClassTable.from_splits(split_classes(list(spans), VALIDATION, TEST), spans)


class Characters:
    """The characters that are told apart, chosen but not drawn yet.

    Attributes:
        spans: First row and number of drawings of each, by name.
    """

    def __init__(self) -> None:
        self._faces = drawing.faces()
        self._charmaps = [set(face.get_charmap()) for face in self._faces]
        self._codes = drawing.distinct(_thumbnails(self._faces, self._charmaps))
        names = [f"U+{code:04X} {unicodedata.name(chr(code))}" for code in self._codes]
        self.spans: Spans = spans_of(dict.fromkeys(names, drawing.DRAWINGS))

    def draw(self) -> Arrays:
        """Draw each in all its faces."""
        images = np.concatenate([_draw_class(code, self._faces, self._charmaps) for code in self._codes])
        return Arrays({"x": images}, {"spans": self.spans})


def _thumbnails(faces: list[Any], charmaps: list[set[int]]) -> dict[int, drawing.Floats]:
    """Return how each candidate looks in each regular face that has it."""
    regular = [
        (face, charmap) for face, charmap in zip(faces, charmaps, strict=True) if Path(face.fname).stem in drawing.FACES
    ]
    looks = {}
    for code in drawing.candidates([charmap for _, charmap in regular]):
        rendered = [drawing.render(face, code) for face, charmap in regular if code in charmap]
        if inks := [drawing.thumbnail(ink) for ink in rendered if ink is not None]:
            looks[code] = np.stack(inks)
    return looks


def _draw_class(code: int, faces: list[Any], charmaps: list[set[int]]) -> NDArray[np.uint8]:
    """Return the character's drawings, uint8 [20, 28, 28]."""
    rendered = [drawing.render(face, code) for face, charmap in zip(faces, charmaps, strict=True) if code in charmap]
    fields = [drawing.distance(ink) for ink in rendered if ink is not None]
    return drawing.draw(fields, drawing.Pen(), drawing.class_generator(code))
