"""Reads image files into bytes of one size."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.workers.data.base import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def read_picture(source: Path | bytes, *, size: int, color: bool, where: str) -> NDArray[np.uint8]:
    """Return uint8 [1 or 3, size, size], resized without regard to proportions, on white where it is transparent.

    Args:
        source: An image file, or its content.
        size: Side in pixels.
        color: Three channels instead of one.
        where: How an error names the file.

    Raises:
        DataError: It is not an image, or it is cut short or damaged.
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
