"""The inverse of a displacement field, by damped fixed-point and Newton iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..support.slabs import slabs
from .grid import apply_affine, lattice, length, lengths_mm, sample

__all__ = ["TOLERANCE", "Inverse", "invert_ddf", "invert_on_grid"]

TOLERANCE = 0.01  # voxels
FIXED_POINT_ITERATIONS = 12
NEWTON_ITERATIONS = 48
SMALLEST_STEP = 1e-3


def invert_ddf(
    ddf: torch.Tensor,
    tolerance: float = TOLERANCE,
    where: torch.Tensor | None = None,
    there: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find v with v(y) + u(y + v(y)) = 0, so that y + v(y) undoes x + u(x); u is extended beyond its border.

    Each voxel iterates v <- v - a (v + u(y + v)) with its own step length a, which is halved whenever the residual
    grows. (With a = 1, this is Chen et al., "A simple fixed-point approach to invert a deformation field", Medical
    Physics 2008, which needs a Lipschitz constant below one.) Voxels that do not converge continue with damped Newton
    steps. Where the field folds, there is no inverse: the result is the best point found, and its residual is large.

    Args:
        ddf: u, shape (d, *spatial), in voxels, float32.
        tolerance: stop iterating a voxel once its residual is below this many voxels.
        where: the points y, shape (d, ...), in voxels of the field's grid; by default its own voxels.
        there: u at these points, of their shape, where it is known.

    Returns:
        v in voxels of the field's grid, of the shape of the points, and the residual vectors v + u(y + v), too.
    """
    targets = lattice(ddf.shape[1:]) if where is None else where
    points = targets.flatten(1)
    there = ddf if where is None else there
    inverse = -(sample(ddf, points) if there is None else there.flatten(1))
    residual = inverse + sample(ddf, points + inverse)
    size = length(residual)
    for directions, iterations in ((_residual, FIXED_POINT_ITERATIONS), (_newton_direction, NEWTON_ITERATIONS)):
        step = torch.ones_like(size)
        active = (size > tolerance).nonzero().squeeze(1)
        for _ in range(iterations):
            if not len(active):
                break
            # index_select takes a third of the time of [:, active]
            start, before, missing = (values.index_select(1, active) for values in (points, inverse, residual))
            size_before, length_of_step = size.index_select(0, active), step.index_select(0, active)
            trial = before - length_of_step * directions(ddf, start + before, missing)
            trial_residual = trial + sample(ddf, start + trial)
            trial_size = length(trial_residual)
            # a failed trial is discarded and repeated with half the step length
            better = trial_size < size_before
            length_of_step = torch.where(better, (2 * length_of_step).clamp(max=1), length_of_step / 2)
            size_now = torch.where(better, trial_size, size_before)
            step.index_copy_(0, active, length_of_step)
            size.index_copy_(0, active, size_now)
            inverse.index_copy_(1, active, torch.where(better, trial, before))
            residual.index_copy_(1, active, torch.where(better, trial_residual, missing))
            active = active[(size_now > tolerance) & (length_of_step > SMALLEST_STEP)]
    return inverse.view_as(targets), residual.view_as(targets)


class Inverse(NamedTuple):
    """The inverse of a registration on the grid of its moving image, (X, Y, Z).

    Attributes:
        ddf: in voxels of that grid, (3, X, Y, Z).
        residual_mm: by how much it misses, (X, Y, Z).
        solved: where it misses by less than the tolerance, boolean, (X, Y, Z).
        covered: where it leads into the fixed image, boolean, (X, Y, Z); elsewhere it is a continuation.
    """

    ddf: torch.Tensor
    residual_mm: torch.Tensor
    solved: torch.Tensor
    covered: torch.Tensor


def invert_on_grid(
    ddf: torch.Tensor, affine: torch.Tensor, alignment: torch.Tensor, moving_affine: torch.Tensor, shape: Sequence[int]
) -> Inverse:
    """Invert a registration on the grid of the moving image, from which it leads back to the fixed one.

    Between the images lies an affine map, which may be large, and on it a small displacement. The map is undone exactly
    and the rest by :func:`invert_ddf`; beyond the fixed image the displacement of its border goes on.

    Args:
        ddf: the displacement, alignment included, in voxels of the fixed grid, shape (3, X, Y, Z).
        affine: voxel to world of the fixed grid, 4x4.
        alignment: from the fixed to the moving world, 4x4; the part of ``ddf`` that is affine.
        moving_affine: voxel to world of the moving grid, 4x4.
        shape: the three sizes of the moving grid.
    """
    affine, alignment, moving_affine = affine.double(), alignment.double(), moving_affine.double()
    aligned = torch.linalg.solve(affine, alignment @ affine)  # the map, in voxels of the fixed grid
    unmoved = torch.equal(alignment, torch.eye(4, dtype=alignment.dtype))
    small = ddf if unmoved else _without_map(ddf, aligned)
    to_fixed = torch.linalg.solve(aligned, torch.linalg.solve(affine, moving_affine))
    to_moving = torch.linalg.solve(moving_affine, affine)
    same = unmoved and tuple(shape) == tuple(ddf.shape[1:]) and torch.equal(affine, moving_affine)
    limit = torch.tensor(ddf.shape[1:]).view(3, 1, 1, 1) - 0.5
    result = Inverse(torch.empty(3, *shape), torch.empty(*shape), *torch.empty(2, *shape, dtype=torch.bool))
    for rows in slabs(shape):
        voxels = lattice(shape, rows=rows)
        start = apply_affine(to_fixed, voxels)
        inverse, residual = invert_ddf(small, where=start, there=small[:, rows] if same else None)
        found = start + inverse
        result.ddf[:, rows] = apply_affine(to_moving, found) - voxels
        result.residual_mm[rows] = lengths_mm(residual, alignment @ affine)
        result.solved[rows] = length(residual) <= TOLERANCE
        result.covered[rows] = ((found >= -0.5) & (found <= limit)).all(0)
    return result


def _without_map(ddf: torch.Tensor, aligned: torch.Tensor) -> torch.Tensor:
    """Return the displacement that is left of a ddf before an affine map, both in voxels of its grid."""
    rest = torch.linalg.inv(aligned)[:3, :3].float()
    small = torch.empty_like(ddf)
    for rows in slabs(ddf.shape[1:]):
        own = lattice(ddf.shape[1:], rows=rows)
        small[:, rows] = torch.tensordot(rest, own + ddf[:, rows] - apply_affine(aligned, own), dims=1)
    return small


def _residual(ddf: torch.Tensor, points: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """The direction of the fixed-point iteration."""
    return residual


def _newton_direction(ddf: torch.Tensor, points: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Solve (I + grad u) s = residual at points (d, N); the derivative is a difference over 0.01 voxel."""
    here, columns = sample(ddf, points), []
    for axis in range(len(points)):
        shifted = points.clone()
        shifted[axis] += 0.01
        columns.append((sample(ddf, shifted) - here) / 0.01)
    jacobian = torch.stack(columns, dim=-1).movedim(0, 1) + torch.eye(len(points))
    direction, failed = torch.linalg.solve_ex(jacobian, residual.t())
    singular = (failed != 0) | ~direction.isfinite().all(1)  # at a fold, where least squares also work
    if singular.any():
        inverse = torch.linalg.pinv(jacobian[singular])
        direction[singular] = torch.einsum("nij,jn->ni", inverse, residual[:, singular])
    return direction.t()
