"""The inverse of a displacement field, by damped fixed-point iteration."""

from __future__ import annotations

import torch

from .grid import lattice, sample

__all__ = ["invert_ddf"]


def invert_ddf(
    ddf: torch.Tensor, tolerance: float = 0.01, max_iterations: int = 200
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find v with v(y) + u(y + v(y)) = 0, so that y + v(y) undoes x + u(x); u is extended at its border.

    Each voxel iterates v <- v - a (v + u(y + v)) with a step a of its own, halved whenever its residual grows (Chen et
    al., "A simple fixed-point approach to invert a deformation field", Medical Physics 2008, is a = 1, which needs a
    Lipschitz constant below one). Voxels that reached the tolerance rest. Where the field folds there is no inverse:
    the best point found is returned, and its residual tells.

    Args:
        ddf: u, shape (d, *spatial), in voxels, float32.
        tolerance: residual, in voxels, at which a voxel rests.
        max_iterations: upper limit.

    Returns:
        v in voxels, shape (d, *spatial), and the residual vectors v + u(y + v), of the same shape.
    """
    dims, shape = ddf.shape[0], ddf.shape[1:]
    points = lattice(shape).flatten(1)
    inverse = -ddf.flatten(1)
    residual = inverse + sample(ddf, points + inverse)
    best = residual.norm(dim=0)
    active = (best > tolerance).nonzero().squeeze(1)
    current, step = residual[:, active], torch.ones(len(active))
    for _ in range(max_iterations):
        if len(active) == 0:
            break
        trial = inverse[:, active] - step * current
        trial_residual = trial + sample(ddf, points[:, active] + trial)
        size = trial_residual.norm(dim=0)
        better = size < best[active]
        improved = active[better]
        inverse[:, improved], residual[:, improved] = trial[:, better], trial_residual[:, better]
        best[improved] = size[better]
        # a failed trial is taken back and tried again with half the step
        step = torch.where(better, (1.2 * step).clamp(max=1), step / 2)
        keep = (best[active] > tolerance) & (step > 1e-4)
        active, step = active[keep], step[keep]
        current = residual[:, active]
    return inverse.view(dims, *shape), residual.view(dims, *shape)
