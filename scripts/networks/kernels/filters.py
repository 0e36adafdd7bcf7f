"""Box and Gaussian filters of images and fields, (B, C, *spatial)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .sampling import resize
from .tracing import new_tensor

__all__ = ["extend", "gaussian", "window_mean", "window_mean_transposed"]

TRUNCATED = 3.0  # standard deviations
FULL = 0.5  # mean weight at which an average is as good as a value
SHORT = 3  # voxels: radius of a kernel for which a convolution is fast
LEAST = 1e-3  # sum of weights, in voxels, that counts


def window_mean(image: torch.Tensor, window_size: int, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Compute the mean over a box window with an odd side; voxels outside the image do not count.

    Args:
        image: shape (B, C, *spatial).
        window_size: side of the window in voxels.
        weight: how much each voxel counts, from 0 to 1, shape (B, 1, *spatial); None means 1.
    """
    if weight is None:
        return _mean(image, _box(window_size))
    sums = _matrices(image, _box(window_size))
    return _along_axes(weight * image, sums) / _along_axes(weight, sums).clamp(min=LEAST)


def window_mean_transposed(image: torch.Tensor, window_size: int, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Apply the transpose of :func:`window_mean`: divide by the number of voxels of each window, then sum."""
    sums = _matrices(image, _box(window_size))
    if weight is None:
        return _along_axes(image, [matrix.t() for matrix in _normalized(sums)])
    return weight * _along_axes(image / _along_axes(weight, sums).clamp(min=LEAST), sums)


def gaussian(field: torch.Tensor, sigma: float) -> torch.Tensor:
    """Apply a Gaussian filter of ``sigma`` voxels, truncated at 3 sigma; voxels outside the grid do not count."""
    return field if sigma == 0 else _mean(field, _bell(sigma))


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


class _Kernel(NamedTuple):
    """A filter along one axis: its weight at a distance in voxels, and the largest distance that counts."""

    weight: Callable[[torch.Tensor], torch.Tensor]
    radius: int


def _box(window_size: int) -> _Kernel:
    return _Kernel(torch.ones_like, window_size // 2)


def _bell(sigma: float) -> _Kernel:
    return _Kernel(lambda distance: torch.exp(-0.5 * (distance / sigma).square()), math.ceil(TRUNCATED * sigma))


def _mean(image: torch.Tensor, kernel: _Kernel) -> torch.Tensor:
    """Filter along every axis; voxels outside the image do not count."""
    matrices = _matrices(image, kernel)
    short = image.ndim == 5 and kernel.radius <= SHORT
    return (
        _convolved(image, kernel, matrices)
        if short and _has_fast_convolution(image)
        else _along_axes(image, _normalized(matrices))
    )


def _matrices(image: torch.Tensor, kernel: _Kernel) -> list[torch.Tensor]:
    """Return for each axis the matrix that filters a line of voxels."""
    lattices = (new_tensor(torch.arange, extent, image) for extent in image.shape[2:])
    distances = ((lattice[:, None] - lattice).abs() for lattice in lattices)
    return [kernel.weight(far.clamp(max=kernel.radius)) * (far <= kernel.radius) for far in distances]


def _normalized(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [matrix / matrix.sum(1, keepdim=True) for matrix in matrices]


def _along_axes(image: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply all lines of an image, axis by axis, by matrices: faster than shifted copies or most convolutions."""
    with torch.autocast(image.device.type, enabled=False):
        for axis, matrix in enumerate(matrices[:-1], start=2):
            lines = image.flatten(axis + 1).flatten(0, axis - 1)
            image = torch.bmm(matrix.expand(lines.shape[0], -1, -1), lines).view(image.shape)
        return image @ matrices[-1].t()


def _has_fast_convolution(image: torch.Tensor) -> bool:
    return (
        image.device.type == "cpu"
        and image.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not (torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling())
    )


def _convolved(image: torch.Tensor, kernel: _Kernel, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Filter the first two axes of a volume by one convolution, for which the last axis is the channels."""
    first, second, last = matrices
    radius, extent = kernel.radius, image.shape[-1]
    taps = kernel.weight(torch.arange(-radius, radius + 1).abs().to(image))
    window = (taps[:, None] * taps).expand(extent, 1, -1, -1)
    with torch.autocast("cpu", enabled=False):
        planes = F.conv2d(image.flatten(0, 1).permute(0, 3, 1, 2), window, padding=radius, groups=extent)
        planes = planes.permute(0, 2, 3, 1).div_(first.sum(1)[:, None, None] * second.sum(1)[:, None])
        return (planes @ _normalized([last])[0].t()).view(image.shape)
