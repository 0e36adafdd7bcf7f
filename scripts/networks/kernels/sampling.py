"""Multilinear interpolation of an image under a dense displacement field, with its exact derivatives.

The convention is that of ``monai.networks.blocks.Warp``: a ddf is in voxels, in the order of the tensor's axes, and
``warped(x) = image(clamp(x + ddf(x)))``, which means pull-back, aligned corners and border padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import combinations, product
from operator import mul
from typing import Any

import torch
import torch.nn.functional as F

from ...support.slabs import slabs
from .tracing import new_tensor

__all__ = ["corners_and_weights", "interpolate", "pad_to_multiple", "resize", "upsample", "warp", "warp_with_gradient"]

Derivatives = dict[tuple[int, ...], torch.Tensor]


def warp(image: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
    """Sample ``image`` at ``x + ddf(x)``: the first result of :func:`warp_with_gradient`."""
    if torch.is_grad_enabled() and (image.requires_grad or ddf.requires_grad):
        return _Warp.apply(image, ddf)
    if not _is_large(ddf):
        return _value(image, ddf)
    warped = image.new_empty((*image.shape[:2], *ddf.shape[2:]))
    for rows in slabs(ddf.shape[2:]):
        warped[:, :, rows] = _value(image, ddf[:, :, rows], rows.start)
    return warped


def warp_with_gradient(image: torch.Tensor, ddf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample ``image`` at ``x + ddf(x)`` and return the value and the derivative of the interpolant there.

    The derivative is that of the piecewise multilinear function itself, not an interpolated finite difference. At a
    lattice point it is the one-sided derivative towards larger coordinates (towards smaller ones on the last lattice
    point); beyond the border, where the padding is constant, it is zero. The value and the derivative are made from the
    same 2^d corners, which are read one after another. The backward pass is written by hand and keeps only ``image``
    and ``ddf``.

    Args:
        image: shape (B, C, *spatial), floating point.
        ddf: displacement in voxels, shape (B, d, *spatial), of the dtype of ``image``.

    Returns:
        the sampled image, shape (B, C, *spatial), and its gradient per voxel, shape (B, C, d, *spatial).
    """
    if torch.is_grad_enabled() and (image.requires_grad or ddf.requires_grad):
        warped, gradient = _WarpWithGradient.apply(image, ddf)
        return warped, gradient
    if not _is_large(ddf):
        return _value_and_gradient(image, ddf)
    warped = image.new_empty((*image.shape[:2], *ddf.shape[2:]))
    gradient = image.new_empty((*image.shape[:2], *ddf.shape[1:]))
    for rows in slabs(ddf.shape[2:]):
        warped[:, :, rows], gradient[:, :, :, rows] = _value_and_gradient(image, ddf[:, :, rows], rows.start)
    return warped, gradient


def corners_and_weights(size: torch.Size, ddf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the 2^d corners of each point and their weights in :func:`warp`, for values that cannot be averaged.

    Args:
        size: spatial size of the moving image.
        ddf: displacement in voxels, shape (B, d, *spatial).

    Returns:
        flat indices into the moving image, and differentiable weights that sum to 1; both (B, 2^d, *spatial).
    """
    lower, fraction, _ = _locate(size, ddf)
    corners = product((0, 1), repeat=len(size))
    weights = [reduce(mul, [t if bit else 1 - t for t, bit in zip(fraction, bits)]) for bits in corners]
    indices = torch.cat(list(_corner_indices(size, lower)), dim=1).unflatten(2, ddf.shape[2:])
    return indices, torch.stack(weights, dim=1)


def interpolate(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Sample an image, (C, *spatial), linearly at points in voxels, (d, ...); its border goes on. Without gradients.

    Returns:
        the values, shape (C, ...).
    """
    size = image.shape[1:]
    lower, fraction, _ = _in_cells(size, points.unbind(0))
    index = _first_corner(size, lower).flatten()
    return torch.stack([_interpolated(channel.flatten(), index, size, fraction, 0)[()] for channel in image])


def resize(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Interpolate (B, C, *spatial) linearly to another size, with aligned corners and without smoothing."""
    if tuple(image.shape[2:]) == tuple(size):
        return image
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(image, size=tuple(size), mode=mode, align_corners=True)


def upsample(ddf: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Interpolate a ddf in voxels to a grid of twice the size, and double its values, which are in voxels."""
    return 2 * resize(ddf, size)


def pad_to_multiple(image: torch.Tensor, factor: int) -> torch.Tensor:
    """Repeat the last voxels of (B, C, *spatial) until each size is a multiple of ``factor``."""
    # not -extent % factor, since ONNX defines the remainder of a negative number differently
    missing = [(factor - extent % factor) % factor for extent in image.shape[2:]]
    return F.pad(image, [side for amount in reversed(missing) for side in (0, amount)], mode="replicate")


class _Warp(torch.autograd.Function):
    """Keeps only the image and the displacement; the backward pass computes the first derivatives."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(image, ddf)
        return _value(image, ddf)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return _backward(ctx, grads[0], None)


class _WarpWithGradient(torch.autograd.Function):
    """Keeps only the image and the displacement; the backward pass also computes mixed second derivatives."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, ddf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(image, ddf)
        return _value_and_gradient(image, ddf)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return _backward(ctx, *grads)


def _backward(
    ctx: Any, grad_value: torch.Tensor, grad_gradient: torch.Tensor | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    image, ddf = ctx.saved_tensors
    grad_image = grad_ddf = None
    if ctx.needs_input_grad[1]:
        grad_ddf = _backward_ddf(image, ddf, grad_value, grad_gradient)
    if ctx.needs_input_grad[0]:
        grad_image = _backward_image(image, ddf, grad_value, grad_gradient)
    return grad_image, grad_ddf


def _is_large(ddf: torch.Tensor) -> bool:
    """Whether an interpolation goes slab by slab: the same values in a quarter of the memory."""
    # sizes must not decide anything in an exported network, for which any size is good
    exported = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return not exported and len(slabs(ddf.shape[2:])) > 1


def _locate(
    size: torch.Size, ddf: torch.Tensor, first_row: int = 0
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """:func:`_in_cells` of the points x + ddf(x); the ddf begins at this row of its first axis."""
    points = []
    for axis in range(len(size)):
        shape = [1] * len(size)
        shape[axis] = -1
        line = new_tensor(torch.arange, ddf.shape[2 + axis], ddf)
        points.append(ddf[:, axis] + (line + first_row if axis == 0 and first_row else line).view(shape))
    return _in_cells(size, points)


def _in_cells(
    size: torch.Size, points: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Return for each axis the lower corner, the fraction towards the upper one, and whether a point is inside."""
    lower, fraction, inside = [], [], []
    for point, extent in zip(points, size):
        clamped = point.clamp(0, extent - 1)
        inside.append(clamped == point)
        corner = clamped.floor().clamp_(max=max(extent - 2, 0))
        fraction.append(clamped.sub_(corner))
        # clamped as integers, so that a NaN displacement gives NaN and not an index out of range
        lower.append(corner.int().clamp_(0, max(extent - 2, 0)))
    return lower, fraction, inside


def _first_corner(size: torch.Size, lower: list[torch.Tensor]) -> torch.Tensor:
    """Return the flat indices of the lowest of the 2^d corners, (B, *spatial)."""
    base = lower[0]
    for index, extent in zip(lower[1:], size[1:]):
        base = base * extent + index
    return base


def _corner_steps(size: torch.Size) -> list[int]:
    """Return for each axis how far a flat index moves from the lower to the upper corner."""
    steps = [1]
    for extent in reversed(size[1:]):
        steps.insert(0, steps[0] * extent)
    return [step if extent > 1 else 0 for step, extent in zip(steps, size)]


def _corner_indices(size: torch.Size, lower: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield the flat indices of the 2^d corners, each (B, 1, points), one at a time to save memory."""
    base = _first_corner(size, [index.long() for index in lower]).flatten(1).unsqueeze(1)
    corners = product((0, 1), repeat=len(size))
    # plain numbers, since copying a tensor of offsets to the GPU would stall it
    return (base + sum(s for s, bit in zip(_corner_steps(size), bits) if bit) for bits in corners)


def _derivatives(
    image: torch.Tensor, ddf: torch.Tensor, order: int, first_row: int = 0
) -> tuple[Derivatives, list[torch.Tensor]]:
    """Mixed derivatives of the multilinear interpolant, keyed by their axes: () value, (0,) first, (0, 1) mixed second.

    The corners are merged axis by axis. A derivative along the axis is the difference of the two ends; all others are
    interpolated between them.
    """
    size = image.shape[2:]
    lower, fraction, inside = _locate(size, ddf, first_row)
    samples = new_tensor(torch.arange, image.shape[0], lower[0]).view(-1, *[1] * len(size))
    index = _first_corner(size, [lower[0] + samples * size[0], *lower[1:]])
    channels = [_interpolated(one.flatten(), index.flatten(), size, fraction, order) for one in image.unbind(1)]
    if len(channels) == 1:
        return {axes: values.unsqueeze(1) for axes, values in channels[0].items()}, inside
    return {axes: torch.stack([one[axes] for one in channels], 1) for axes in channels[0]}, inside


def _interpolated(
    flat: torch.Tensor, index: torch.Tensor, size: torch.Size, fraction: list[torch.Tensor], order: int, axis: int = 0
) -> Derivatives:
    """Merge the corners of one channel from an axis on; the first of them is ``flat[index]``."""
    if axis == len(size):
        return {(): flat.index_select(0, index).view(fraction[0].shape)}
    step = _corner_steps(size)[axis]
    low, high = (_interpolated(flat[first:], index, size, fraction, order, axis + 1) for first in (0, step))
    slopes = {(axis, *axes): high[axes] - low[axes] for axes in low if len(axes) < order}
    return {axes: low[axes].lerp_(high[axes], fraction[axis]) for axes in low} | slopes


def _value(image: torch.Tensor, ddf: torch.Tensor, first_row: int = 0) -> torch.Tensor:
    return _derivatives(image, ddf, 0, first_row)[0][()]


def _value_and_gradient(
    image: torch.Tensor, ddf: torch.Tensor, first_row: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    derivatives, inside = _derivatives(image, ddf, 1, first_row)
    gradient = [derivatives[(axis,)].mul_(mask.unsqueeze(1)) for axis, mask in enumerate(inside)]
    return derivatives[()], torch.stack(gradient, dim=2)


def _backward_ddf(
    image: torch.Tensor, ddf: torch.Tensor, grad_value: torch.Tensor, grad_gradient: torch.Tensor | None
) -> torch.Tensor:
    """Gradient by the displacement; the pure second derivatives of a multilinear function are zero."""
    derivatives, inside = _derivatives(image, ddf, order=1 if grad_gradient is None else 2)
    dims = len(inside)
    result = [grad_value * derivatives[(axis,)] for axis in range(dims)]
    if grad_gradient is not None:
        for first, second in combinations(range(dims), 2):
            mixed = derivatives[(first, second)]
            result[first] = result[first] + grad_gradient[:, :, second] * mixed * inside[second].unsqueeze(1)
            result[second] = result[second] + grad_gradient[:, :, first] * mixed * inside[first].unsqueeze(1)
    return torch.stack([(grad.sum(1) * mask) for grad, mask in zip(result, inside)], dim=1)


def _backward_image(
    image: torch.Tensor, ddf: torch.Tensor, grad_value: torch.Tensor, grad_gradient: torch.Tensor | None
) -> torch.Tensor:
    """Gradient by the image: the weights of the corners, and their derivatives, are added up at the corners."""
    size = image.shape[2:]
    lower, fraction, inside = _locate(size, ddf)
    flat = torch.zeros_like(image.flatten(2))
    for corner, bits in zip(_corner_indices(size, lower), product((0, 1), repeat=len(size))):
        weights = [t if bit else 1 - t for t, bit in zip(fraction, bits)]
        grad = grad_value * reduce(mul, weights).unsqueeze(1)
        if grad_gradient is not None:
            for axis, bit in enumerate(bits):
                slope = reduce(mul, weights[:axis] + weights[axis + 1 :]) * inside[axis]
                grad = grad + grad_gradient[:, :, axis] * (slope if bit else -slope).unsqueeze(1)
        flat = flat.scatter_add(2, corner.expand(-1, flat.shape[1], -1), grad.flatten(2))
    return flat.view(image.shape)
