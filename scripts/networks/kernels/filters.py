"""Box and Gaussian filters of images and fields, (B, C, *spatial)."""

from __future__ import annotations

import math
from functools import reduce
from operator import mul
from typing import Any

import torch
import torch.nn.functional as F

from .sampling import resize
from .tracing import new_tensor

__all__ = ["extend", "gaussian", "window_mean", "window_mean_transposed"]

TRUNCATED = 3.0  # standard deviations
FULL = 0.5  # mean weight at which an average is as good as a value
LEAST = 1e-3  # sum of weights, in voxels, that counts


def window_mean(image: torch.Tensor, window_size: int, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Compute the mean over a box window with an odd side; voxels outside the image do not count.

    Args:
        image: shape (B, C, *spatial).
        window_size: side of the window in voxels.
        weight: how much each voxel counts, from 0 to 1, shape (B, 1, *spatial); None means 1.
    """
    box = (1.0,) * window_size
    if weight is None:
        return _filter(image, box) / _mass(image, box)
    return _filter(weight * image, box) / _filter(weight, box).clamp(min=LEAST)


def window_mean_transposed(image: torch.Tensor, window_size: int, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Apply the transpose of :func:`window_mean`: divide by the number of voxels of each window, then sum."""
    box = (1.0,) * window_size
    if weight is None:
        return _filter(image / _mass(image, box), box)
    return weight * _filter(image / _filter(weight, box).clamp(min=LEAST), box)


def gaussian(field: torch.Tensor, sigma: float) -> torch.Tensor:
    """Apply a Gaussian filter of ``sigma`` voxels, truncated at 3 sigma; voxels outside the grid do not count."""
    if sigma == 0:
        return field
    radius = math.ceil(TRUNCATED * sigma)
    kernel = tuple(math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1))
    return _filter(field, kernel) / _mass(field, kernel)


def extend(field: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Continue a field smoothly to where its weight is 0, from coarser and coarser averages of the rest.

    Args:
        field: shape (B, C, *spatial).
        weight: from 0 to 1, shape (B, 1, *spatial).

    Returns:
        the field where the weight is 1, and a mixture of both between; 0 for a sample whose weight is 0 everywhere.
    """
    size = field.shape[2:]
    half = tuple((extent + 1) // 2 for extent in size)
    if half == tuple(size):
        return weight * field
    pool: Any = F.adaptive_avg_pool2d if len(size) == 2 else F.adaptive_avg_pool3d
    mass = pool(weight, half)
    coarse = pool(weight * field, half) / mass.clamp(min=LEAST)
    return torch.lerp(resize(extend(coarse, (mass / FULL).clamp(max=1)), size), field, weight)


def _mass(image: torch.Tensor, kernel: tuple[float, ...]) -> torch.Tensor:
    """Sum the values of the kernel that lie inside the image, for each voxel, (1, 1, *spatial)."""
    ones = [new_tensor(torch.ones, [1, 1, extent], image) for extent in image.shape[2:]]
    masses = [_weighted_shifts(line, kernel).flatten() for line in ones]
    return reduce(mul, torch.meshgrid(masses, indexing="ij"))[None, None]


def _filter(image: torch.Tensor, kernel: tuple[float, ...]) -> torch.Tensor:
    """Apply the same symmetric kernel along every axis, with zeros outside."""
    if torch.is_grad_enabled() and image.requires_grad:
        return _Filter.apply(image, kernel)
    return _weighted_shifts(image, kernel)


class _Filter(torch.autograd.Function):
    """A symmetric kernel with zeros outside is its own transpose: nothing is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, kernel: tuple[float, ...]) -> torch.Tensor:
        ctx.kernel = kernel
        return _weighted_shifts(image, kernel)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _filter(grads[0], ctx.kernel), None


def _weighted_shifts(image: torch.Tensor, kernel: tuple[float, ...]) -> torch.Tensor:
    """Add shifted copies, axis by axis, which for small kernels is several times faster than a convolution."""
    half = len(kernel) // 2
    for axis in range(2, image.ndim):
        extent = image.shape[axis]
        padded = F.pad(image, [0, 0] * (image.ndim - 1 - axis) + [half, half])
        image = kernel[0] * padded.narrow(axis, 0, extent)
        for shift, weight in enumerate(kernel[1:], start=1):
            image.add_(padded.narrow(axis, shift, extent), alpha=weight)
    return image
