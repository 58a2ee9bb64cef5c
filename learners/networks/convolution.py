"""A convolution that is known by what it is made of, so that what follows it can be had without its output.

The first convolution of grey images has the largest output of a few-shot network, and the smallest patches. Being
linear in its patches, it has the mean and the variance that follow from theirs (``statistics``), and its largest
outputs can be found as they are made (``pooled``).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from metaloom.learners.networks.pooled_convolution import PRECISIONS, pooled_convolution

LARGEST_PATCH = 12  # values in a patch up to which its covariance is cheaper than a pass over the output
FEW_THREADS = 4  # up to which one thread of ``pooled_convolution`` beats torch's convolution and pooling


class Convolution(NamedTuple):
    """What a layer's input was made of: images [n, inputs, height, width] by kernel [outputs, inputs, size, size]."""

    images: Tensor
    kernel: Tensor
    stride: int = 1
    padding: int = 1

    def outputs(self) -> Tensor:
        """Return [n, outputs, height, width]."""
        return F.conv2d(self.images, self.kernel, stride=self.stride, padding=self.padding)

    def pooled(self) -> Tensor:
        """Return the largest of every 2x2 outputs: [n, outputs, height // 2, width // 2]."""
        if self._is_grey and torch.get_num_threads() <= FEW_THREADS:
            return pooled_convolution(self.images, self.kernel)
        return F.max_pool2d(self.outputs(), 2)

    @property
    def _is_grey(self) -> bool:
        """Whether ``pooled_convolution`` is for it."""
        shape, form = tuple(self.kernel.shape[1:]), (self.stride, self.padding)
        known = self.images.dtype == self.kernel.dtype and self.kernel.dtype in PRECISIONS
        return self.has_small_patches and shape == (1, 3, 3) and form == (1, 1) and known

    @property
    def has_small_patches(self) -> bool:
        """Whether ``statistics`` is the cheaper way: constant images, few values in a patch, and a CPU."""
        moves = self.images.requires_grad or forward_ad.unpack_dual(self.images).tangent is not None  # type: ignore[no-untyped-call]
        constant = not moves and self.images.device.type == "cpu"
        return constant and self.kernel[0].numel() <= LARGEST_PATCH

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return the outputs' mean and variance, each [outputs], from those of the patches p: w.E[p] and w'Cov[p]w.

        Exact to any order in the kernel, and in float64 from the images' covariance on (error 2e-7). It saves two
        passes over the outputs and two over their gradient.
        """
        mean, covariance = self._patch_moments()
        rows = self.kernel.flatten(1).double()  # [outputs, patch]
        var = ((rows @ covariance) * rows).sum(1)
        return (rows @ mean).to(self.kernel.dtype), var.to(self.kernel.dtype)

    @torch.no_grad()
    def _patch_moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean [patch] and the uncorrected covariance [patch, patch] of all patches, in float64."""
        size, step = self.kernel.shape[-1], self.stride
        centre = float(self.images.mean())  # moves every patch alike; without it the covariance would cost digits
        padded = F.pad(self.images - centre, (self.padding,) * 4, value=-centre)
        windows = padded.unfold(2, size, step).unfold(3, size, step)
        n, channels, height, width = windows.shape[:4]  # [n, channels, height, width, size, size]
        patches = windows.permute(0, 1, 4, 5, 2, 3).reshape(n, channels * size * size, height * width)
        mean = patches.mean((0, 2)).double()
        # one product an image, summed in float64: a single long one in float32 would cost two digits
        products = torch.bmm(patches, patches.transpose(1, 2)).double().sum(0) / (n * height * width)
        return mean + centre, products - torch.outer(mean, mean)
