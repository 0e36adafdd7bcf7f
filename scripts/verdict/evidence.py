"""What tells a good registration from a failed one, in the images that a network saw and in its displacement."""

from __future__ import annotations

import math
from itertools import combinations

import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor

from ..deformation.grid import by_image, length
from ..deformation.jacobian import jacobian_determinant
from ..networks.kernels.sampling import warp
from ..networks.similarity import local_moments
from ..results.measures import pearson

__all__ = ["agreement", "find_evidence"]

WINDOW = 5  # voxels
TISSUE = 0.03  # of the range of intensities: what is darker is background
COARSE = 4  # voxels: side of the blocks that are averaged before orientations are compared
LARGEST = 2**21  # voxels; of larger volumes blocks of 2 are looked at, of larger stacks every second slice, or fewer
SMALLEST_DETERMINANT = 0.02  # a fold counts as a compression to this


def find_evidence(image: torch.Tensor, ddf: torch.Tensor, spatial_dims: int) -> dict[str, float]:
    """Measure what a verdict is made of.

    Args:
        image: moving and fixed on the grid of the network, in [0, 1], shape (2, X, Y, Z); further channels are ignored.
        ddf: the displacement in voxels, shape (3, X, Y, Z).
        spatial_dims: 2 or 3, as the network; for 2, the slices are images of their own.

    Returns:
        ``agreement``: see :func:`agreement`.
        ``correlation``: Pearson's, of the fixed and the warped image.
        ``other_orientation``: the correlation of both images, coarse and before the registration, where the moving one
        is flipped along the best choice of axes, minus that where it is not.
        ``displacement``: the 95th percentile of its length, in voxels.
        ``irregularity``: the standard deviation of log |J|.
        ``compression``: the first percentile of log |J|.

        All but the orientation are measured where the fixed or the warped image is brighter than the background.
    """
    pairs, field = (
        by_image(part, spatial_dims) for part in (convert_to_tensor(image, track_meta=False)[:2].cpu(), ddf)
    )
    if spatial_dims == 2:
        step = -(-field[:, 0].numel() // LARGEST)
        pairs, field = pairs[::step].float(), field[::step].float()
    while field[:, 0].numel() > LARGEST and spatial_dims == 3:
        pairs, field = F.avg_pool3d(pairs, 2), F.avg_pool3d(field, 2) / 2
    moving, fixed = pairs.split(1, 1)
    warped = warp(moving, field)
    tissue = (fixed > TISSUE) | (warped > TISSUE)
    if not tissue.any():
        return {}
    change = jacobian_determinant(field)[:, None][tissue].clamp(min=SMALLEST_DETERMINANT).log()
    return {
        "agreement": agreement(fixed, warped, tissue),
        "correlation": _correlation(fixed[tissue], warped[tissue]),
        "other_orientation": _other_orientation(fixed, moving),
        "displacement": _percentile(length(field.movedim(1, 0))[:, None][tissue], 0.95),
        "irregularity": float(change.std()),
        "compression": _percentile(change, 0.01),
    }


def agreement(fixed: torch.Tensor, warped: torch.Tensor, mask: torch.Tensor) -> float:
    """Return the local covariance of two images over the larger of their two local variances, each summed over a mask.

    It is 1 for equal images, near 0 for unrelated ones, and negative where one image is the other one inverted. Unlike
    a correlation it falls, too, where one of the two is noisier, flatter or more blurred than the other one.

    Args:
        fixed: shape (B, 1, *spatial).
        warped: of the same shape.
        mask: where to measure, boolean, of the same shape.

    Returns:
        NaN where both images are flat.
    """
    covariance, var_fixed, var_warped, _, _ = local_moments(fixed, warped, WINDOW)
    total = torch.maximum(var_fixed, var_warped)[mask].sum().item()
    return covariance[mask].sum().item() / total if total > 0 else math.nan


def _other_orientation(fixed: torch.Tensor, moving: torch.Tensor) -> float:
    """How much more alike two images are, on coarse voxels, where one is flipped along the best choice of axes."""
    size = [min(COARSE, n) for n in fixed.shape[2:]]
    pool = F.avg_pool2d if fixed.ndim == 4 else F.avg_pool3d
    first, second = pool(fixed, size), pool(moving, size)
    axes = range(2, fixed.ndim)
    flips = [flip for count in range(1, len(axes) + 1) for flip in combinations(axes, count)]
    return max(_correlation(first, second.flip(flip)) for flip in flips) - _correlation(first, second)


def _correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Pearson's correlation; 0 where one image is flat."""
    value = pearson(first, second)
    return 0.0 if math.isnan(value) else value


def _percentile(values: torch.Tensor, share: float) -> float:
    return float(values.flatten().kthvalue(max(1, round(share * values.numel()))).values)
