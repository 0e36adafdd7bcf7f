"""The inverse of a displacement field, by damped fixed-point and Newton iteration."""

from __future__ import annotations

import torch

from .grid import lattice, sample

__all__ = ["TOLERANCE", "invert_ddf"]

TOLERANCE = 0.01  # voxels
FIXED_POINT_ITERATIONS = 12
MAX_ITERATIONS = 60
SMALLEST_STEP = 1e-3


def invert_ddf(ddf: torch.Tensor, tolerance: float = TOLERANCE) -> tuple[torch.Tensor, torch.Tensor]:
    """Find v with v(y) + u(y + v(y)) = 0, so that y + v(y) undoes x + u(x); u is extended beyond its border.

    Each voxel iterates v <- v - a (v + u(y + v)) with its own step length a, which is halved whenever the residual
    grows. (With a = 1, this is Chen et al., "A simple fixed-point approach to invert a deformation field", Medical
    Physics 2008, which needs a Lipschitz constant below one.) Voxels that do not converge continue with damped Newton
    steps. Where the field folds, there is no inverse: the result is the best point found, and its residual is large.

    Args:
        ddf: u, shape (d, *spatial), in voxels, float32.
        tolerance: stop iterating a voxel once its residual is below this many voxels.

    Returns:
        v in voxels, shape (d, *spatial), and the residual vectors v + u(y + v), of the same shape.
    """
    points = lattice(ddf.shape[1:]).flatten(1)
    inverse = -ddf.flatten(1)
    residual = inverse + sample(ddf, points + inverse)
    size = _length(residual)
    step = torch.ones_like(size)
    for iteration in range(MAX_ITERATIONS):
        if iteration == FIXED_POINT_ITERATIONS:
            step.fill_(1)
        active = ((size > tolerance) & (step > SMALLEST_STEP)).nonzero().squeeze(1)
        direction = residual[:, active]
        if iteration >= FIXED_POINT_ITERATIONS:
            direction = _newton_direction(ddf, points[:, active] + inverse[:, active], direction)
        trial = inverse[:, active] - step[active] * direction
        trial_residual = trial + sample(ddf, points[:, active] + trial)
        trial_size = _length(trial_residual)
        # a failed trial is discarded and repeated with half the step length
        better = trial_size < size[active]
        step[active] = torch.where(better, (2 * step[active]).clamp(max=1), step[active] / 2)
        improved = active[better]
        inverse[:, improved], residual[:, improved] = trial[:, better], trial_residual[:, better]
        size[improved] = trial_size[better]
    return inverse.view_as(ddf), residual.view_as(ddf)


def _length(vectors: torch.Tensor) -> torch.Tensor:
    """Return the lengths of vectors (d, N); several times faster than ``norm(dim=0)``."""
    return vectors.square().sum(0).sqrt()


def _newton_direction(ddf: torch.Tensor, points: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Solve (I + grad u) s = residual at points (d, N); the derivative is a difference over 0.01 voxel."""
    here, columns = sample(ddf, points), []
    for axis in range(len(points)):
        shifted = points.clone()
        shifted[axis] += 0.01
        columns.append((sample(ddf, shifted) - here) / 0.01)
    jacobian = torch.stack(columns, dim=-1).movedim(0, 1) + torch.eye(len(points))
    # least squares also work for a singular Jacobian, at a fold
    return torch.einsum("nij,jn->in", torch.linalg.pinv(jacobian), residual)
