"""Reads a user's images into bytes of one size."""

import io
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.workers.data.base import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
ANIMATED = (".gif", ".tif", ".tiff", ".webp")  # formats of which one file may hold several pictures
HIDDEN = ("Thumbs.db", "desktop.ini", "__MACOSX")  # that file managers and archives leave, beside names with a dot


def read_picture(source: Path | bytes, *, size: int, color: bool, where: str) -> NDArray[np.uint8]:
    """Return uint8 [1 or 3, size, size], resized without regard to proportions, on white where it is transparent.

    Args:
        source: An image file, or its content.
        size: Side in pixels.
        color: Three channels instead of one.
        where: How a DataError about a file that is no image, cut short or damaged names it.
    """
    from PIL import Image, ImageOps

    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened) as image:
            upright: Any = ImageOps.exif_transpose(image)
            if upright.mode == "F":
                raise ValueError("its pixels are floating-point numbers: save it with 8 or 16 bits")
            if upright.mode.startswith("I"):  # 16 bits: converting would clip, not scale
                upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
            if upright.has_transparency_data:  # what is see-through has some colour too, often that of the strokes
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            mode = "RGB" if color else "L"
            small = upright.convert(mode).resize((size, size), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a readable image ({error})") from error
    pixels = np.asarray(small, dtype=np.uint8)
    return pixels.transpose(2, 0, 1) if color else pixels[None]


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is none of the user's own."""
    return name.startswith(".") or name in HIDDEN


def is_picture(file: Path) -> bool:
    """Return whether a file's ending is one of an image, and the file is not hidden (as ``._1.png`` is)."""
    return file.suffix.lower() in ENDINGS and not is_hidden(file.name)


def left_out(folder: Path, used: Iterable[str]) -> Iterator[str]:
    """Say which files in a folder of images are not used, counted by reason; hidden ones are passed over."""
    taken, endings, elsewhere = set(used), Counter[str](), 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in files:
            ending = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path per file takes seconds for 60,000
            if is_hidden(name) or f"{place}{os.sep}{name}" in taken:
                continue
            if ending in ENDINGS:
                elsewhere += 1
            else:
                endings[ending or "without an ending"] += 1
    if endings:
        counts = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
        yield f"{_files(endings.total())} left out: {counts} (no format that is read: {', '.join(ENDINGS)})"
    if elsewhere:
        yield f"{_files(elsewhere)} left out: images that are not directly inside a class folder"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def holds_several(path: Path) -> bool:
    """Return whether an image file that can be read has more than one picture, of which the first is used."""
    from PIL import Image

    if path.suffix.lower() not in ANIMATED:
        return False
    with Image.open(path) as image:
        return getattr(image, "n_frames", 1) > 1
