"""Dissimilarities D(F, W) of a fixed image F and a warped image W, and their derivatives in closed form.

Each energy is taken per sample and summed over voxels (NCC: one value per sample, its derivative multiplied by the
number of voxels), so that one step size serves every image size. Images have shape (B, 1, *spatial).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from ..errors import InputError
from .sampling import warp_with_gradient

__all__ = ["SIMILARITIES", "Similarity", "get_similarity", "similarity_gradient"]

EPSILON = 1e-5


@dataclass(frozen=True)
class Similarity:
    """An energy, (fixed, warped) -> (B,), and its derivative with respect to the warped image, -> (B, 1, *spatial)."""

    energy: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    derivative: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def similarity_gradient(
    similarity: Similarity, fixed: torch.Tensor, moving: torch.Tensor, ddf: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Warp the moving image and return it with the gradient of D with respect to the displacement.

    The chain rule: grad_u D = dD/dW * (grad M)(x + u), with the exact derivative of the interpolant.

    Args:
        similarity: what to differentiate.
        fixed: shape (B, 1, *spatial).
        moving: shape (B, 1, *spatial).
        ddf: displacement in voxels, shape (B, d, *spatial).

    Returns:
        the warped image (B, 1, *spatial) and the gradient (B, d, *spatial).
    """
    warped, warped_gradient = warp_with_gradient(moving, ddf)
    return warped, similarity.derivative(fixed, warped) * warped_gradient.squeeze(1)


def ssd(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    """Sum of squared differences."""
    return (warped - fixed).square().flatten(1).sum(1)


def ssd_derivative(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    return 2 * (warped - fixed)


def ncc(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    """Negative squared normalised cross-correlation over the whole image, times the number of voxels."""
    _, _, covariance, variances = _global_moments(fixed, warped)
    return -fixed[0].numel() * (covariance.square() / (variances[0] * variances[1] + EPSILON)).flatten()


def ncc_derivative(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    f, w, covariance, (var_fixed, var_warped) = _global_moments(fixed, warped)
    denominator = var_fixed * var_warped + EPSILON
    return (covariance * var_fixed / denominator * w - f) * (2 * covariance / denominator)


def _global_moments(
    fixed: torch.Tensor, warped: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    axes = tuple(range(1, fixed.ndim))
    f = fixed - fixed.mean(axes, keepdim=True)
    w = warped - warped.mean(axes, keepdim=True)
    variances = (f.square().mean(axes, keepdim=True), w.square().mean(axes, keepdim=True))
    return f, w, (f * w).mean(axes, keepdim=True), variances


def lncc(fixed: torch.Tensor, warped: torch.Tensor, window_size: int = 9) -> torch.Tensor:
    """Negative squared normalised cross-correlation in a box window around each voxel, summed over the voxels.

    At the border the window holds only the voxels inside the image.
    """
    covariance, var_fixed, var_warped, _, _ = _local_moments(fixed, warped, window_size)
    return -(covariance.square() / (var_fixed * var_warped + EPSILON)).flatten(1).sum(1)


def lncc_derivative(fixed: torch.Tensor, warped: torch.Tensor, window_size: int = 9) -> torch.Tensor:
    covariance, var_fixed, var_warped, mean_fixed, mean_warped = _local_moments(fixed, warped, window_size)
    denominator = var_fixed * var_warped + EPSILON
    by_covariance = -2 * covariance / denominator
    by_variance = covariance.square() * var_fixed / denominator.square()
    # transposed window means of dD/dcov and dD/dvar: cov = A(FW) - A(F)A(W), var = A(WW) - A(W)A(W)
    constant = by_covariance * mean_fixed + 2 * by_variance * mean_warped
    adjoint = _window_mean_transposed(torch.cat([by_covariance, by_variance, constant], 1), window_size)
    return fixed * adjoint[:, 0:1] + 2 * warped * adjoint[:, 1:2] - adjoint[:, 2:3]


def _local_moments(fixed: torch.Tensor, warped: torch.Tensor, window_size: int) -> tuple[torch.Tensor, ...]:
    products = torch.cat([fixed, warped, fixed * warped, fixed.square(), warped.square()], 1)
    mean_f, mean_w, mean_fw, mean_ff, mean_ww = window_mean(products, window_size).split(1, 1)
    return mean_fw - mean_f * mean_w, mean_ff - mean_f.square(), mean_ww - mean_w.square(), mean_f, mean_w


def window_mean(image: torch.Tensor, window_size: int) -> torch.Tensor:
    """Mean over a box window of odd side, one axis after the other; voxels outside the image do not count."""
    return _pool_axes(image, window_size, count_include_pad=False)


def _window_mean_transposed(image: torch.Tensor, window_size: int) -> torch.Tensor:
    """The transpose of :func:`window_mean`: divide by the number of voxels of each window, then sum."""
    ones = torch.ones_like(image[:1, :1])
    inside = _pool_axes(ones, window_size, count_include_pad=True)
    return _pool_axes(image / inside, window_size, count_include_pad=True)


def _pool_axes(image: torch.Tensor, window_size: int, count_include_pad: bool) -> torch.Tensor:
    shape = image.shape
    for axis in range(2, len(shape)):
        # (leading, axis, trailing) is a view, and 2D pooling, unlike 3D, takes windows larger than the image
        image = image.reshape(-1, shape[axis], shape[axis + 1 :].numel())
        image = F.avg_pool2d(
            image, (window_size, 1), stride=1, padding=(window_size // 2, 0), count_include_pad=count_include_pad
        )
    return image.view(shape)


SIMILARITIES = {
    "ssd": Similarity(ssd, ssd_derivative),
    "ncc": Similarity(ncc, ncc_derivative),
    "lncc": Similarity(lncc, lncc_derivative),
}


def get_similarity(name: str, window_size: int = 9) -> Similarity:
    """Look up a similarity by name.

    Args:
        name: ``ssd``, ``ncc`` or ``lncc``.
        window_size: odd side of the window of ``lncc``, in voxels; the others ignore it.

    Raises:
        InputError: when the name is unknown or the window is not a positive odd number.
    """
    if name not in SIMILARITIES:
        raise InputError(f"unknown similarity '{name}': expected one of {', '.join(SIMILARITIES)}.")
    if window_size < 1 or window_size % 2 == 0:
        raise InputError(f"window_size must be a positive odd number, got {window_size}.")
    if name == "lncc":
        return Similarity(partial(lncc, window_size=window_size), partial(lncc_derivative, window_size=window_size))
    return SIMILARITIES[name]
