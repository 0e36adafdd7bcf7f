"""Dissimilarities D(F, W) of a fixed image F and a warped image W, and their derivatives in closed form.

Each energy is taken per sample and summed over voxels (NCC: one value per sample, its derivative multiplied by the
number of voxels), so that one step size serves every image size. Images have shape (B, 1, *spatial).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ..support.errors import InputError
from .kernels.filters import window_mean, window_mean_transposed
from .kernels.sampling import warp_with_gradient
from .kernels.tracing import new_tensor

__all__ = [
    "SIMILARITIES",
    "Similarity",
    "get_similarity",
    "local_correlation",
    "normalized_step",
    "similarity_gradient",
]

EPSILON = 1e-5
# of images in [0, 1]: a variance, and a squared difference, that count as noise
FLAT = 1e-4
NOISE = 1e-2


@dataclass(frozen=True)
class Similarity:
    """What is measured between a fixed and a warped image, (B, 1, *spatial) each.

    Attributes:
        energy: D, shape (B,).
        derivative: dD/dW, shape (B, 1, *spatial).
        residual: D as least squares, after the best intensity fit of W to F: what is left of F, and the slope of the
            fit, each broadcastable to (B, 1, *spatial).
    """

    energy: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    derivative: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    residual: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


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


def normalized_step(
    similarity: Similarity, fixed: torch.Tensor, moving: torch.Tensor, ddf: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Warp the moving image and return it with the step of the demons algorithm, at most half a voxel long.

    With the residual r of the intensity fit and the gradient g of the fitted warped image, r g / (|g|^2 + r^2 + noise):
    Vercauteren et al., "Diffeomorphic demons", NeuroImage 2009, equation 4, there for SSD. As each similarity here is
    a least-squares problem once its intensity fit is made (none, one line, a line in each window), the same formula
    serves all, and the step does not depend on contrast. Of several channels, numerator and denominator are summed.

    Args:
        similarity: what to descend, for channel 0; for the others, learned features, it is SSD.
        fixed: shape (B, C, *spatial).
        moving: shape (B, C, *spatial).
        ddf: displacement in voxels, shape (B, d, *spatial).

    Returns:
        the warped channels (B, C, *spatial) and the step (B, d, *spatial), a descent direction.
    """
    warped, gradient = warp_with_gradient(moving, ddf)
    residual, slope = similarity.residual(fixed[:, :1], warped[:, :1])
    residual = torch.cat([residual, fixed[:, 1:] - warped[:, 1:]], 1)
    gradient = torch.cat([(slope * gradient[:, 0]).unsqueeze(1), gradient[:, 1:]], 1)
    length = gradient.square().sum((1, 2)).unsqueeze(1) + residual.square().sum(1, keepdim=True) + NOISE
    return warped, (residual.unsqueeze(2) * gradient).sum(1) / length


def ssd_energy(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    """Sum of squared differences."""
    return (warped - fixed).square().flatten(1).sum(1)


def ssd_derivative(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    return 2 * (warped - fixed)


def ssd_residual(fixed: torch.Tensor, warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return fixed - warped, new_tensor(torch.ones, [1] * fixed.ndim, fixed)


def ncc_energy(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    """Negative squared normalised cross-correlation over the whole image, times the number of voxels."""
    _, _, covariance, variances = _global_moments(fixed, warped)
    return -fixed[0].numel() * (covariance.square() / (variances[0] * variances[1] + EPSILON)).flatten()


def ncc_derivative(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    f, w, covariance, (var_fixed, var_warped) = _global_moments(fixed, warped)
    denominator = var_fixed * var_warped + EPSILON
    return (covariance * var_fixed / denominator * w - f) * (2 * covariance / denominator)


def ncc_residual(fixed: torch.Tensor, warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    f, w, covariance, (_, var_warped) = _global_moments(fixed, warped)
    slope = covariance / (var_warped + EPSILON)
    return f - slope * w, slope


def _global_moments(
    fixed: torch.Tensor, warped: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    axes = tuple(range(1, fixed.ndim))
    f = fixed - fixed.mean(axes, keepdim=True)
    w = warped - warped.mean(axes, keepdim=True)
    variances = (f.square().mean(axes, keepdim=True), w.square().mean(axes, keepdim=True))
    return f, w, (f * w).mean(axes, keepdim=True), variances


def lncc_energy(fixed: torch.Tensor, warped: torch.Tensor, window_size: int = 9) -> torch.Tensor:
    """Negative squared normalised cross-correlation in a box window around each voxel, summed over the voxels.

    At the border the window holds only the voxels inside the image.
    """
    return -local_correlation(fixed, warped, window_size).flatten(1).sum(1)


def local_correlation(fixed: torch.Tensor, warped: torch.Tensor, window_size: int = 9) -> torch.Tensor:
    """Squared normalised cross-correlation in a box window around each voxel, in [0, 1], (B, 1, *spatial)."""
    covariance, var_fixed, var_warped, _, _ = _local_moments(fixed, warped, window_size)
    return covariance.square() / (var_fixed * var_warped + EPSILON)


def lncc_derivative(fixed: torch.Tensor, warped: torch.Tensor, window_size: int = 9) -> torch.Tensor:
    covariance, var_fixed, var_warped, mean_fixed, mean_warped = _local_moments(fixed, warped, window_size)
    denominator = var_fixed * var_warped + EPSILON
    by_covariance = -2 * covariance / denominator
    by_variance = covariance.square() * var_fixed / denominator.square()
    # transposed window means of dD/dcov and dD/dvar: cov = A(FW) - A(F)A(W), var = A(WW) - A(W)A(W)
    constant = by_covariance * mean_fixed + 2 * by_variance * mean_warped
    adjoint = window_mean_transposed(torch.cat([by_covariance, by_variance, constant], 1), window_size)
    return fixed * adjoint[:, 0:1] + 2 * warped * adjoint[:, 1:2] - adjoint[:, 2:3]


def lncc_residual(fixed: torch.Tensor, warped: torch.Tensor, window_size: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    mean_fixed, mean_warped, mean_product, mean_square = window_mean(
        torch.cat([fixed, warped, fixed * warped, warped.square()], 1), window_size
    ).split(1, 1)
    slope = (mean_product - mean_fixed * mean_warped) / (mean_square - mean_warped.square() + FLAT)
    return fixed - mean_fixed - slope * (warped - mean_warped), slope


def _local_moments(fixed: torch.Tensor, warped: torch.Tensor, window_size: int) -> tuple[torch.Tensor, ...]:
    products = torch.cat([fixed, warped, fixed * warped, fixed.square(), warped.square()], 1)
    mean_f, mean_w, mean_fw, mean_ff, mean_ww = window_mean(products, window_size).split(1, 1)
    return mean_fw - mean_f * mean_w, mean_ff - mean_f.square(), mean_ww - mean_w.square(), mean_f, mean_w


SIMILARITIES = {
    "ssd": Similarity(ssd_energy, ssd_derivative, ssd_residual),
    "ncc": Similarity(ncc_energy, ncc_derivative, ncc_residual),
    "lncc": Similarity(lncc_energy, lncc_derivative, lncc_residual),
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
        return Similarity(
            partial(lncc_energy, window_size=window_size),
            partial(lncc_derivative, window_size=window_size),
            partial(lncc_residual, window_size=window_size),
        )
    return SIMILARITIES[name]
