"""Refines the displacement of frames by Gauss-Newton steps, each solved over a window: Lucas and Kanade's method.

Frames of one cine show the same tissue with the same brightness, so that small differences between them are motion.
Where a window has no texture in one direction, the steps leave the displacement to the smoothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..deformation.grid import lattice
from ..networks.kernels.filters import gaussian

__all__ = ["invert_slices", "refine", "sample_slices"]

WINDOW = 2.0  # voxels: standard deviation of the Gaussian window of a step
SMOOTHING = 1.25  # voxels: of the Gaussian filter of the displacement after each step
DAMPING = 3e-5  # squared gradient of images in [0, 1], per voxel, that counts as noise
LONGEST = 1.0  # voxels: longest step


NEAR, MISSED = 0.1, 1e-3  # voxels by which an inverse may be off, and the share of its points that are more
RELAXATION = 0.7  # of the inversion, which would not converge where the wall thickens otherwise


def refine(fixed: torch.Tensor, moving: torch.Tensor, ddf: torch.Tensor, steps: int) -> torch.Tensor:
    """Improve the displacement from the slices of one frame to those of another one.

    With the residual r = M(x + u) - F and the mean g of the gradients of both, which makes the step of second order
    (Malis, "Improving vision-based control using efficient second-order minimization techniques", ICRA 2004), a step s
    minimises the sum of (r + g s)^2 over the window: (sum g g^T + damping) s = -sum g r. Lucas and Kanade, "An
    iterative image registration technique with an application to stereo vision", IJCAI 1981.

    Args:
        fixed: the slices of the reference frame, in [0, 1], shape (Z, X, Y).
        moving: those of the other frame, of the same shape.
        ddf: where to start, in voxels, shape (Z, 2, X, Y).
        steps: number of steps.

    Returns:
        the displacement, of the same shape.
    """
    fixed_gradient = _gradient(fixed)
    moving_and_gradient = torch.cat([moving[:, None], _gradient(moving)], 1)
    points = lattice(fixed.shape[1:])
    for _ in range(steps):
        warped = sample_slices(moving_and_gradient, points + ddf)
        residual, gradient = warped[:, 0] - fixed, (warped[:, 1:] + fixed_gradient) / 2
        step = _solve(gradient, residual)
        # composed, (id + u) o (id + s), since a sum folds where the motion is large
        ddf = gaussian(sample_slices(ddf, points + step) + step, SMOOTHING)
    return ddf


def _solve(gradient: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """The step (Z, 2, X, Y) that removes the residual (Z, X, Y) best over each window."""
    i, j = gradient.unbind(1)
    ii, ij, jj, ir, jr = gaussian(torch.stack([i * i, i * j, j * j, i * residual, j * residual], 1), WINDOW).unbind(1)
    ii, jj = ii + DAMPING, jj + DAMPING
    scale = -1 / (ii * jj - ij * ij)
    step = torch.stack([scale * (jj * ir - ij * jr), scale * (ii * jr - ij * ir)], 1)
    return step / (step.square().sum(1, keepdim=True).sqrt() / LONGEST).clamp(min=1)


def _gradient(images: torch.Tensor) -> torch.Tensor:
    """Central differences of (Z, X, Y), shape (Z, 2, X, Y)."""
    return torch.stack(torch.gradient(images, dim=(1, 2)), 1)


def sample_slices(images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Interpolate slices (Z, C, X, Y) at points in voxels, (Z, 2, X, Y); the border continues.

    Torch's sampler takes half the time of :func:`scripts.networks.kernels.sampling.warp`, which also has gradients.
    """
    x, y = images.shape[2:]
    normalized = torch.stack([points[:, 1] * (2 / (y - 1)) - 1, points[:, 0] * (2 / (x - 1)) - 1], -1)
    return F.grid_sample(images, normalized, padding_mode="border", align_corners=True)


def invert_slices(ddf: torch.Tensor, points: torch.Tensor, start: torch.Tensor, iterations: int) -> torch.Tensor:
    """Invert displacements: find v with v(y) + u(y + v(y)) = 0 by fixed-point iterations.

    Args:
        ddf: u, in voxels, shape (Z, 2, X, Y).
        points: where the inverse is wanted, in voxels, shape (2, I, J).
        start: first guess of the inverse, shape (Z, 2, I, J).
        iterations: at most as many.

    Returns:
        v, of the shape of ``start``.
    """
    inverse = start
    for _ in range(iterations):
        residual = inverse + sample_slices(ddf, points + inverse)
        if (residual.abs() > NEAR).float().mean() < MISSED:
            break
        inverse = inverse - RELAXATION * residual
    return inverse
