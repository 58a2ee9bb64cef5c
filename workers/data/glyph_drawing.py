"""Draws characters as hands would: from the outlines of fonts, each drawing distorted anew.

A glyph is rendered large once and turned into its signed distance field. A drawing
samples that field on a warped grid (rotation, shear, stretch, shift and a smooth
random displacement) and inks what lies within a random pen width of it, so that
strokes vary in position, slant and thickness, and edges stay smooth at 28x28.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

SIZE = 28
DRAWINGS = 20
EM = 60  # pixels per em at which a glyph is rendered: twice the resolution of a drawing
THUMBNAIL = 16  # pixels to a side when characters are compared
MARGIN = 8  # empty pixels around it, so that thickened strokes fit
FACES = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")
CATEGORIES = ("Lu", "Ll", "Lo", "Nd", "Nl", "No", "Sc", "So")  # letters first: they win over their twins
# patterns of dots and lines, of which one is told from another by counting only
PATTERNS = ("BRAILLE", "DOMINO", "TETRAGRAM", "HEXAGRAM", "PLAYING", "BOX", "DIGRAM", "QUADRANT")
ALIKE = 0.9  # cosine above which two characters count as one picture; see ``distinct``
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pen:
    """How far drawings may stray: uniform in ± each bound, in the units named."""

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
    found = []
    for code in sorted(set().union(*charmaps)):
        character = chr(code)
        if unicodedata.category(character) not in CATEGORIES or unicodedata.decomposition(character):
            continue
        if unicodedata.name(character, "").startswith(PATTERNS):
            continue
        found.append(code)
    return sorted(found, key=lambda code: (CATEGORIES.index(unicodedata.category(chr(code))), code))


def distinct(thumbnails: Mapping[int, Floats]) -> list[int]:
    """Keep each character that looks unlike all those kept before it, in every regular face.

    Latin A, Greek Alpha and Cyrillic A are one picture, and so are o, O and 0 once
    size is taken away: of such twins only the first is kept, or two classes could not
    be told apart.

    Args:
        thumbnails: Of each code point, [faces, features], rows of length 1.
    """
    kept: list[int] = []
    seen = np.empty((sum(map(len, thumbnails.values())), THUMBNAIL**2), dtype=np.float32)
    filled = 0
    for code, looks in thumbnails.items():
        if filled and float((seen[:filled] @ looks.T).max()) > ALIKE:
            continue
        kept.append(code)
        seen[filled : filled + len(looks)] = looks
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
    opened = []
    for family in FACES:
        for path in sorted(folder.glob(f"{family}*.ttf")):
            if path.stem == family or path.stem.startswith((f"{family}-", f"{family}Bol", f"{family}Ita")):
                font = FT2Font(str(path))
                font.set_size(EM, 72)
                opened.append(font)
    return opened


def render(font: Any, code: int) -> NDArray[np.uint8] | None:
    """Return the glyph's ink [height, width], cropped; None if it is blank or a mere dot."""
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


def draw(field: Floats, pen: Pen, generator: Generator) -> NDArray[np.uint8]:
    """Return one drawing, uint8 [28, 28], ink = 255."""
    extent = max(field.shape) - 2 * MARGIN
    zoom = extent / generator.uniform(*pen.size_pixels)  # field pixels per drawing pixel
    grid = _warped_grid(pen, generator) * zoom
    rows = grid[0] + (field.shape[0] - 1) / 2
    columns = grid[1] + (field.shape[1] - 1) / 2
    depth = _sample(field, rows, columns) / zoom  # in drawing pixels
    thickness = generator.uniform(*pen.thickness_pixels)
    return np.asarray(255 * np.clip(depth + thickness + 0.5, 0, 1), dtype=np.float32).round().astype(np.uint8)


def class_generator(code: int) -> Generator:
    """Return the stream that all drawings of one character are made from."""
    return Generator(Philox(key=np.array([code, 28], dtype=np.uint64)))


def drawings(fields: list[Floats], pen: Pen, generator: Generator) -> Iterator[NDArray[np.uint8]]:
    """Yield DRAWINGS drawings, going round the character's faces."""
    for number in range(DRAWINGS):
        yield draw(fields[number % len(fields)], pen, generator)


def _warped_grid(pen: Pen, generator: Generator) -> Floats:
    """Return where each pixel of a drawing lies in the glyph, [2, 28, 28], in drawing pixels from its centre."""
    angle = np.deg2rad(generator.uniform(-pen.rotation_degrees, pen.rotation_degrees))
    shear = generator.uniform(-pen.shear, pen.shear)
    tall, wide = np.exp(generator.uniform(-pen.stretch, pen.stretch, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[tall, 0.0], [shear, wide]])
    shift = generator.uniform(-pen.shift_pixels, pen.shift_pixels, 2)
    knots = generator.normal(0.0, pen.wobble_pixels, (2, 5, 5))
    along = _knot_weights()
    centred = np.arange(SIZE) - (SIZE - 1) / 2
    plane = np.stack(np.meshgrid(centred, centred, indexing="ij")) - shift[:, None, None]
    warped = np.einsum("ij,jrc->irc", matrix, plane) + np.einsum("rk,ikl,cl->irc", along, knots, along)
    return np.asarray(warped, dtype=np.float32)


@cache
def _knot_weights() -> Floats:
    """Return the weights [28, 5] by which five knots along an axis make a smooth curve."""
    knots = np.linspace(0, SIZE - 1, 5)
    spread = np.exp(-0.5 * ((np.arange(SIZE)[:, None] - knots) / (0.6 * knots[1])) ** 2)
    return np.asarray(spread / spread.sum(1, keepdims=True), dtype=np.float32)


def _sample(field: Floats, rows: Floats, columns: Floats) -> Floats:
    """Sample bilinearly; beyond the margin lies no ink."""
    rows = np.clip(rows, 0, field.shape[0] - 1.001)
    columns = np.clip(columns, 0, field.shape[1] - 1.001)
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    down, right = rows - top, columns - left
    upper = field[top, left] * (1 - right) + field[top, left + 1] * right
    lower = field[top + 1, left] * (1 - right) + field[top + 1, left + 1] * right
    return np.asarray(upper * (1 - down) + lower * down, dtype=np.float32)
