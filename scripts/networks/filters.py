"""Box and Gaussian filters of images and fields, (B, C, *spatial)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["gaussian", "window_mean", "window_mean_transposed"]

TRUNCATED = 3.0  # standard deviations


def window_mean(image: torch.Tensor, window_size: int) -> torch.Tensor:
    """Mean over a box window of odd side; voxels outside the image do not count."""
    box = (1.0,) * window_size
    return _filter(image, box) / _filter(torch.ones_like(image[:1, :1]), box)


def window_mean_transposed(image: torch.Tensor, window_size: int) -> torch.Tensor:
    """The transpose of :func:`window_mean`: divide by the number of voxels of each window, then sum."""
    box = (1.0,) * window_size
    return _filter(image / _filter(torch.ones_like(image[:1, :1]), box), box)


def gaussian(field: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian filter of ``sigma`` voxels, cut at three of them; voxels outside the grid do not count."""
    if sigma == 0:
        return field
    radius = math.ceil(TRUNCATED * sigma)
    kernel = tuple(math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1))
    return _filter(field, kernel) / _filter(torch.ones_like(field[:1, :1]), kernel)


def _filter(image: torch.Tensor, kernel: tuple[float, ...]) -> torch.Tensor:
    """The same symmetric kernel along every axis, with zeros outside."""
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
    """A sum of shifted copies, axis by axis: for small kernels several times faster than pooling or convolution."""
    half = len(kernel) // 2
    for axis in range(2, image.ndim):
        extent = image.shape[axis]
        padded = F.pad(image, [0, 0] * (image.ndim - 1 - axis) + [half, half])
        image = kernel[0] * padded.narrow(axis, 0, extent)
        for shift, weight in enumerate(kernel[1:], start=1):
            image.add_(padded.narrow(axis, shift, extent), alpha=weight)
    return image
