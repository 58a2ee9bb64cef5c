"""The embedded few-shot data: characters of many scripts, drawn from the fonts that matplotlib ships.

A class is one character, in all its faces. The drawings are made once (seconds, no download), are the same on every
machine with the same fonts, and are then memory-mapped.

They imitate handwriting: a glyph is rendered large once and turned into its signed distance field. A drawing samples
that field on a warped grid (rotation, shear, stretch, shift and a smooth random displacement) and inks the points
within a random pen width of it, so that strokes vary in position, slant and thickness, and edges stay smooth at 28x28.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange
from metaloom.search_spaces.sections.tasks import Queries
from metaloom.workers.data import sampler
from metaloom.workers.data.base import SOURCES
from metaloom.workers.data.enough import usable
from metaloom.workers.data.store import Arrays, cached

VERSION = 4  # of the drawings: raise it whenever they change
VALIDATION, TEST = 0.15, 0.2  # of the characters
SIZE = 28
DRAWINGS = 20
KNOTS = 5  # of the smooth displacement, along each side
EM = 60  # pixels per em at which a glyph is rendered: twice the resolution of a drawing
THUMBNAIL = 16  # pixels to a side when characters are compared
MARGIN = 8  # empty pixels around it, so that thickened strokes fit
FACES = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")
CATEGORIES = ("Lu", "Ll", "Lo", "Nd", "Nl", "No", "Sc", "So")  # letters first: they win over their twins
# patterns of dots and lines, which differ only in a count
PATTERNS = ("BRAILLE", "DOMINO", "TETRAGRAM", "HEXAGRAM", "PLAYING", "BOX", "DIGRAM", "QUADRANT")
ALIKE = 0.9  # cosine above which two characters count as one picture; see ``distinct``
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class GlyphTasks(FewShotSettings):
    """Characters of many scripts drawn with matplotlib's fonts: the embedded few-shot data."""

    ways: WaysOrRange = 5
    shots: ShotsOrRange = 1
    queries: Queries = 15


@SOURCES.register("glyphs")
class Glyphs(sampler.FewShotSource):
    """At least 1,000 characters, 20 drawings each, 28x28."""

    name = "glyphs"
    brightest = 255.0
    packages = ("matplotlib", "pillow", "scipy")
    Config = GlyphTasks

    @classmethod
    def open(cls, config: GlyphTasks, *, seed: int, cache: Path) -> Self:
        """Map the drawings; draw them first if they are not there."""

        def drawn() -> Arrays:
            fonts = faces()
            charmaps = [set(font.get_charmap()) for font in fonts]
            codes = distinct(_thumbnails(fonts, charmaps))
            spans = sampler.spans_of({f"U+{code:04X} {unicodedata.name(chr(code))}": DRAWINGS for code in codes})
            table = sampler.ClassTable.divided(spans, VALIDATION, TEST)  # checked before the slow drawing
            usable(cls.name, table, config)
            images = [draw(_fields(code, fonts, charmaps), Pen(), class_generator(code)) for code in codes]
            return Arrays({"x": np.concatenate(images)}, {"spans": spans})

        arrays = cached(cache, cls.name, {"source": cls.name, "version": VERSION}, drawn)
        table = sampler.ClassTable.divided(arrays.about["spans"], VALIDATION, TEST)
        return cls(arrays, table, config, seed=seed, scale=cls.brightest, inputs=(1, SIZE, SIZE))


def _thumbnails(fonts: list[Any], charmaps: list[set[int]]) -> dict[int, Floats]:
    """Return how each candidate looks in each regular face that has it."""
    regular = [(font, charmap) for font, charmap in zip(fonts, charmaps, strict=True) if Path(font.fname).stem in FACES]
    looks = {}
    for code in candidates([charmap for _, charmap in regular]):
        rendered = [render(font, code) for font, charmap in regular if code in charmap]
        if inks := [thumbnail(ink) for ink in rendered if ink is not None]:
            looks[code] = np.stack(inks)
    return looks


def _fields(code: int, fonts: list[Any], charmaps: list[set[int]]) -> list[Floats]:
    """Return a character's distance field in each face that has it."""
    rendered = [render(font, code) for font, charmap in zip(fonts, charmaps, strict=True) if code in charmap]
    return [distance(ink) for ink in rendered if ink is not None]


@dataclass(frozen=True)
class Pen:
    """The range of the distortions: uniform in ± each bound, in the units named."""

    rotation_degrees: float = 15.0
    shear: float = 0.2
    stretch: float = 0.15
    size_pixels: tuple[float, float] = (17.0, 23.0)
    shift_pixels: float = 2.0
    wobble_pixels: float = 1.1
    thickness_pixels: tuple[float, float] = (-0.35, 0.6)


def candidates(charmaps: list[set[int]]) -> list[int]:
    """Return the code points of letters, digits and symbols that some face has, without composed ones.

    Letters come first, then digits, then symbols; code points ascend within each.
    """
    codes = [
        code
        for code, character in ((code, chr(code)) for code in set().union(*charmaps))
        if unicodedata.category(character) in CATEGORIES
        and not unicodedata.decomposition(character)
        and not unicodedata.name(character, "").startswith(PATTERNS)
    ]
    return sorted(codes, key=lambda code: (CATEGORIES.index(unicodedata.category(chr(code))), code))


def distinct(thumbnails: Mapping[int, Floats]) -> list[int]:
    """Keep each character that looks different from all those kept before it, in every regular face.

    Latin A, Greek Alpha and Cyrillic A are one picture, and so are o, O and 0 at equal size: only the first of such
    twins is kept, because a learner could not distinguish two equal classes.

    Args:
        thumbnails: Of each code point, [faces, features], rows of length 1.
    """
    kept: list[int] = []
    pictures = np.empty((sum(map(len, thumbnails.values())), THUMBNAIL**2), dtype=np.float32)
    filled = 0
    for code, looks in thumbnails.items():
        if not filled or float((pictures[:filled] @ looks.T).max()) <= ALIKE:
            kept.append(code)
            pictures[filled : filled + len(looks)] = looks
            filled += len(looks)
    return kept


def thumbnail(ink: NDArray[np.uint8]) -> Floats:
    """Return the upright, slightly blurred glyph fitted into a square, [THUMBNAIL**2], of length 1."""
    from PIL import Image
    from scipy.ndimage import uniform_filter

    scale = (THUMBNAIL - 2) / max(ink.shape)
    tall, wide = (max(1, round(side * scale)) for side in ink.shape)
    small = np.asarray(Image.fromarray(ink).resize((wide, tall), Image.Resampling.BOX), dtype=np.float32)
    square = np.zeros((THUMBNAIL, THUMBNAIL), dtype=np.float32)
    top, left = (THUMBNAIL - tall) // 2, (THUMBNAIL - wide) // 2
    square[top : top + tall, left : left + wide] = small
    flat = uniform_filter(square, 2).ravel()
    return np.asarray(flat / np.linalg.norm(flat), dtype=np.float32)


def faces() -> list[Any]:
    """Open every face of the families in FACES that matplotlib ships, at EM pixels per em."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [
        FT2Font(str(path))
        for family in FACES
        for path in sorted(folder.glob(f"{family}*.ttf"))
        if path.stem == family or path.stem.startswith((f"{family}-", f"{family}Bol", f"{family}Ita"))
    ]
    for font in fonts:
        font.set_size(EM, 72)
    return fonts


def render(font: Any, code: int) -> NDArray[np.uint8] | None:
    """Return the glyph's ink [height, width], cropped; None if it is blank or only a dot."""
    font.set_text(chr(code))
    font.draw_glyphs_to_bitmap(antialiased=True)
    ink = np.asarray(font.get_image())
    rows, columns = np.flatnonzero(ink.max(1, initial=0) > 127), np.flatnonzero(ink.max(0, initial=0) > 127)
    if len(rows) == 0 or max(np.ptp(rows), np.ptp(columns)) < EM // 4:
        return None
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()


def distance(ink: NDArray[np.uint8]) -> Floats:
    """Return the signed distance to the outline in pixels, above 0 inside, with a margin around."""
    from scipy.ndimage import distance_transform_edt

    inside = np.pad(ink, MARGIN) > 127
    signed = distance_transform_edt(inside) - distance_transform_edt(~inside)
    return np.asarray(signed - np.where(inside, 0.5, -0.5), dtype=np.float32)


def draw(fields: Sequence[Floats], pen: Pen, generator: Generator) -> NDArray[np.uint8]:
    """Return a character's drawings, uint8 [DRAWINGS, 28, 28], ink = 255, from each of its faces in turn."""
    face = np.arange(DRAWINGS) % len(fields)
    sides = np.array([field.shape for field in fields])[face]  # [DRAWINGS, 2]
    size = generator.uniform(*pen.size_pixels, DRAWINGS)
    zoom = ((sides.max(1) - 2 * MARGIN) / size)[:, None, None]  # field pixels per drawing pixel
    thickness = generator.uniform(*pen.thickness_pixels, DRAWINGS)[:, None, None]
    places = _warped_grids(pen, generator) * zoom[:, None] + (sides[:, :, None, None] - 1) / 2
    depth = _sample(_stack(fields), face, np.clip(places, 0, sides[:, :, None, None] - 1.001)) / zoom
    ink = 255 * np.clip(depth + thickness + 0.5, 0, 1)
    return np.asarray(ink.round(), dtype=np.uint8)


def class_generator(code: int) -> Generator:
    """Return the random stream of all drawings of one character."""
    return Generator(Philox(key=np.array([code, 28], dtype=np.uint64)))


def _warped_grids(pen: Pen, generator: Generator) -> Floats:
    """Return where each pixel lies in the glyph, from its centre: [DRAWINGS, 2, 28, 28], in drawing pixels."""
    angle = np.deg2rad(generator.uniform(-pen.rotation_degrees, pen.rotation_degrees, DRAWINGS))
    shear = generator.uniform(-pen.shear, pen.shear, DRAWINGS)
    tall, wide = np.exp(generator.uniform(-pen.stretch, pen.stretch, (2, DRAWINGS)))
    cosine, sine, none = np.cos(angle), np.sin(angle), np.zeros(DRAWINGS)
    turn = np.stack([cosine, -sine, sine, cosine], axis=-1).reshape(-1, 2, 2)
    matrix = turn @ np.stack([tall, none, shear, wide], axis=-1).reshape(-1, 2, 2)  # [DRAWINGS, 2, 2]
    shift = generator.uniform(-pen.shift_pixels, pen.shift_pixels, (DRAWINGS, 2, 1))
    knots = generator.normal(0.0, pen.wobble_pixels, (DRAWINGS, 2, KNOTS, KNOTS))
    centred = np.arange(SIZE) - (SIZE - 1) / 2
    plane = np.stack(np.meshgrid(centred, centred, indexing="ij")).reshape(2, -1)
    straight = (matrix @ (plane - shift)).reshape(-1, 2, SIZE, SIZE)
    along = _knot_weights()
    return np.asarray(straight + along @ knots @ along.T, dtype=np.float32)


@cache
def _knot_weights() -> Floats:
    """Return the weights [28, KNOTS] by which knots along an axis make a smooth curve."""
    knots = np.linspace(0, SIZE - 1, KNOTS)
    spread = np.exp(-0.5 * ((np.arange(SIZE)[:, None] - knots) / (0.6 * knots[1])) ** 2)
    return np.asarray(spread / spread.sum(1, keepdims=True), dtype=np.float32)


def _stack(fields: Sequence[Floats]) -> Floats:
    """Return the faces' fields in the corners of squares of one size, [faces, side, side]."""
    side = max(max(field.shape) for field in fields)
    stacked = np.full((len(fields), side, side), -float(MARGIN), dtype=np.float32)
    for square, field in zip(stacked, fields, strict=True):
        square[: field.shape[0], : field.shape[1]] = field
    return stacked


def _sample(fields: Floats, face: NDArray[np.int64], places: Floats) -> Floats:
    """Sample each drawing's face bilinearly at [DRAWINGS, 2, 28, 28]; return [DRAWINGS, 28, 28]."""
    corner = places.astype(np.int64)
    (top, left), (down, right) = np.moveaxis(corner, 1, 0), np.moveaxis(places - corner, 1, 0)
    side = fields.shape[1]
    first = (face[:, None, None] * side + top) * side + left
    flat = fields.ravel()
    upper = flat[first] * (1 - right) + flat[first + 1] * right
    lower = flat[first + side] * (1 - right) + flat[first + side + 1] * right
    return np.asarray(upper * (1 - down) + lower * down, dtype=np.float32)
