"""Affine maps of images, interpolated bilinearly with zeros outside, in plain gathers.

torch's ``grid_sample`` has no double backward and no forward mode; these have derivatives of any order.
"""

import torch
from torch import Tensor


def bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read images at real positions, zero outside; differentiable in all three, to any order.

    Args:
        x: [n, channels, height, width].
        rows: Where to read, in pixels from the middle of the first: [n, height, width].
        columns: Likewise.
    """
    n, channels, height, width = x.shape
    flat = x.reshape(n, channels, height * width)
    top, left = rows.detach().floor(), columns.detach().floor()
    total = torch.zeros_like(x)
    for row_step in (0, 1):
        for column_step in (0, 1):
            row, column = top + row_step, left + column_step
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (1 - (rows - row).abs()) * (1 - (columns - column).abs()) * inside
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            index = index.reshape(n, 1, height * width).expand(n, channels, height * width)
            total = total + flat.gather(2, index).reshape(x.shape) * weight.unsqueeze(1)
    return total


def affine(x: Tensor, matrix: tuple[Tensor, Tensor, Tensor, Tensor], shift: tuple[Tensor, Tensor]) -> Tensor:
    """Read each image where a linear map about its middle, and a shift, say.

    Args:
        x: [n, channels, height, width].
        matrix: (row by row, row by column, column by row, column by column), each [n].
        shift: Pixels added to (row, column), each [n].
    """
    height, width = x.shape[-2:]
    rows = torch.arange(height, dtype=x.dtype, device=x.device).reshape(1, -1, 1) - (height - 1) / 2
    columns = torch.arange(width, dtype=x.dtype, device=x.device).reshape(1, 1, -1) - (width - 1) / 2
    rr, rc, cr, cc, down, right = (one.reshape(-1, 1, 1) for one in (*matrix, *shift))
    read_rows = rr * rows + rc * columns + down + (height - 1) / 2
    read_columns = cr * rows + cc * columns + right + (width - 1) / 2
    return bilinear(x, read_rows, read_columns)
