"""Jacobian determinants of x + ddf(x), and measures of folding.

A ddf has shape (B, d, *spatial) and is in voxels; the determinant depends neither on the unit nor on the rotation of
the grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch

from ..support.slabs import deviation, masked, mean, share, slabs

__all__ = [
    "folding_measures",
    "jacobian_determinant",
    "non_diffeomorphic_volume",
    "published_measures",
]

LEARN2REG_BORDER = 2


def jacobian_determinant(ddf: torch.Tensor, central: bool = False) -> torch.Tensor:
    """Compute |J|, shape (B, *spatial).

    Args:
        ddf: the displacement.
        central: use central differences, one-sided at the border, for measures that others publish; they miss the
            folds of a checkerboard. Otherwise use forward differences; the last voxel of an axis repeats the previous
            difference.

    Raises:
        ValueError: when an axis has fewer than two voxels.
    """
    if min(ddf.shape[2:]) < 2:
        raise ValueError(f"a Jacobian determinant needs two voxels along each axis, got shape {tuple(ddf.shape)}.")
    difference = _central_difference if central else _forward_difference

    def compute(part: torch.Tensor) -> torch.Tensor:
        columns = []
        for axis in range(ddf.shape[1]):
            columns.append(difference(part, 2 + axis))
            columns[-1][:, axis] += 1
        return _determinant(columns)

    if ddf.requires_grad:  # a crop of a training
        return compute(ddf)
    result = ddf.new_empty(len(ddf), *ddf.shape[2:])
    for index, image in enumerate(ddf):
        for rows, around, inner in _with_neighbours(ddf.shape[2:]):
            result[index, rows] = compute(image[None, :, around])[0, inner]
    return result


def non_diffeomorphic_volume(ddf: torch.Tensor) -> torch.Tensor:
    """Compute the volume that is turned inside out, in voxels, for each cell of 2^d neighbouring voxels.

    Liu et al., "On Finite Difference Jacobian Computation in Deformable Image Registration", IJCV 2024. A cell is cut
    into simplices in two mirrored ways: in 2D, 4 triangles; in 3D, 8 corner tetrahedra, whose volumes are the one-sided
    Jacobian determinants, and 2 central ones. A digital transformation is a diffeomorphism when all volumes are
    positive. The result is half the sum of the negative volumes, because the two ways cover the cell twice.

    Returns:
        volumes of shape (B, *[n - 1 for n in spatial]).

    Raises:
        ValueError: when an axis has fewer than two voxels.
    """
    if min(ddf.shape[2:]) < 2:
        raise ValueError(f"a cell needs two voxels along each axis, got shape {tuple(ddf.shape)}.")
    if ddf.requires_grad:
        return _negative_volume(ddf)
    cells = [n - 1 for n in ddf.shape[2:]]
    result = ddf.new_empty(len(ddf), *cells)
    for index, image in enumerate(ddf):
        for rows in slabs(cells):
            result[index, rows] = _negative_volume(image[None, :, rows.start : rows.stop + 1])[0]
    return result


def _negative_volume(ddf: torch.Tensor) -> torch.Tensor:
    """:func:`non_diffeomorphic_volume` in one piece."""
    dims = ddf.shape[1]
    edges = [_forward_edges(ddf, axis) for axis in range(dims)]  # each belongs to several cells
    negative = ddf.new_zeros(())
    for bits in product((0, 1), repeat=dims):
        at_corner = [_of_cells(edge, bits, along=axis) for axis, edge in enumerate(edges)]
        negative = negative + _determinant(at_corner).clamp(max=0) / (2 if dims == 2 else 6)
    if dims == 3:
        for a, b, c, d in (((0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)), ((1, 1, 1), (0, 0, 1), (0, 1, 0), (1, 0, 0))):
            first = _corner(ddf, a)
            diagonals = [_corner(ddf, vertex) - first for vertex in (b, c, d)]
            # for the identity, this is -2 for one and 2 for the other: twice the cell's volume times the orientation
            orientation = -1 if a == (0, 0, 0) else 1
            negative = negative + (orientation * _determinant(diagonals)).clamp(max=0) / 6
    return -negative / 2


def folding_measures(
    determinant: torch.Tensor, volume: torch.Tensor, mask: torch.Tensor | None = None
) -> dict[str, float]:
    """Measure the regularity of a displacement.

    Args:
        determinant: result of :func:`jacobian_determinant`, shape (B, *spatial).
        volume: result of :func:`non_diffeomorphic_volume`, shape (B, *[n - 1 for n in spatial]).
        mask: where to measure, boolean, shape (B, *spatial); None is the whole grid.

    Returns:
        ``folding_percent``, voxels with |J| <= 0; ``ndv_percent``, the non-diffeomorphic volume over the volume of the
        cells whose first corner is in the mask; ``std_log_jacobian``, over voxels with positive |J|. All are NaN if the
        mask is empty.
    """
    if mask is None:
        mask = torch.ones_like(determinant, dtype=torch.bool)
    inverted = mean(masked(volume, mask[(slice(None), *[slice(None, -1)] * (volume.ndim - 1))]))
    inside = masked(determinant, mask)
    return {
        "folding_percent": 100 * share(inside <= 0),
        "ndv_percent": 100 * inverted,
        "std_log_jacobian": deviation(masked(inside, inside > 0), lambda part: part.log().double()),
    }


def published_measures(determinant: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, float]:
    """Measure regularity by central differences, as others publish it.

    Args:
        determinant: result of :func:`jacobian_determinant` with ``central``, shape (B, *spatial).
        mask: where to measure, boolean, shape (B, *spatial); None is the whole grid.

    Returns:
        ``learn2reg_sdlogj``, the standard deviation of log(clip(|J| + 3, 1e-9, 1e9)) without the outermost two voxels
        of each axis, as Learn2Reg's evaluation computes it; ``mean_gradient_jacobian``, the mean of the absolute
        central differences of |J| along the axes, per voxel, as Qiu et al. (MICCAI 2022) report it. Both are NaN if the
        mask is empty.
    """
    if mask is None:
        mask = torch.ones_like(determinant, dtype=torch.bool)
    interior = (slice(None), *[slice(LEARN2REG_BORDER, -LEARN2REG_BORDER)] * (determinant.ndim - 1))
    inside = masked(determinant[interior], mask[interior])
    total = 0.0
    for image, where in zip(determinant, mask):
        for rows, around, inner in _with_neighbours(image.shape):
            for axis in range(image.ndim) if where[rows].any() else ():
                gradient = _central_difference(image[around], axis)[inner]
                total += masked(gradient, where[rows]).abs().double().sum().item()
    return {
        "learn2reg_sdlogj": deviation(inside, lambda part: (part.double() + 3).clamp(1e-9, 1e9).log()),
        "mean_gradient_jacobian": total / (count * (mask.ndim - 1))
        if (count := int(mask.count_nonzero()))
        else float("nan"),
    }


def _with_neighbours(shape: torch.Size) -> Iterator[tuple[slice, slice, slice]]:
    """Cut a grid into slabs: the rows of each, the same with a neighbour on either side, and its place in these."""
    for rows in slabs(shape):
        first = max(rows.start - 1, 0)
        yield rows, slice(first, rows.stop + 1), slice(rows.start - first, rows.stop - first)


def _forward_difference(field: torch.Tensor, axis: int) -> torch.Tensor:
    difference = field.diff(dim=axis)
    return torch.cat([difference, difference.narrow(axis, difference.shape[axis] - 1, 1)], dim=axis)


def _central_difference(field: torch.Tensor, axis: int) -> torch.Tensor:
    """``torch.gradient`` in half its time."""
    inner = field.shape[axis] - 2
    middle = (field.narrow(axis, 2, inner) - field.narrow(axis, 0, inner)) / 2
    ends = (field.narrow(axis, first + 1, 1) - field.narrow(axis, first, 1) for first in (0, inner))
    return torch.cat([next(ends), middle, next(ends)], axis)


def _forward_edges(ddf: torch.Tensor, axis: int) -> torch.Tensor:
    """Return where the edges of the cells along one axis lead, one less of them than voxels along it."""
    edges = ddf.diff(dim=2 + axis)
    edges[:, axis] += 1
    return edges


def _of_cells(values: torch.Tensor, bits: tuple[int, ...], along: int | None = None) -> torch.Tensor:
    """Return the values at one corner of every cell; ``along`` is the axis that has one value for each cell already."""
    window = (
        slice(None) if axis == along else slice(bit, n - 1 + bit)
        for axis, (bit, n) in enumerate(zip(bits, values.shape[2:]))
    )
    return values[(slice(None), slice(None), *window)]


def _corner(ddf: torch.Tensor, bits: tuple[int, ...]) -> torch.Tensor:
    """Return the mapped position of one corner of every cell, relative to the cell, (B, d, *[n - 1])."""
    return _of_cells(ddf, bits) + ddf.new_tensor(bits).view(1, -1, *[1] * len(bits))


def _determinant(columns: list[torch.Tensor]) -> torch.Tensor:
    """Return the determinant of d vectors of shape (B, d, *spatial); faster than ``torch.linalg``."""
    if len(columns) == 2:
        a, b = columns
        return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    (a0, a1, a2), (b0, b1, b2), (c0, c1, c2) = (column.unbind(1) for column in columns)
    first, second, third = (
        torch.addcmul(x * y, z, w, value=-1) for x, y, z, w in ((b1, c2, b2, c1), (b2, c0, b0, c2), (b0, c1, b1, c0))
    )
    return torch.addcmul(torch.addcmul(a0 * first, a1, second), a2, third)
