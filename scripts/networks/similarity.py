"""Dissimilarities of a fixed image F and a warped image W: energies D(F, W) and their derivatives in closed form.

Each energy is computed for each sample and summed over the voxels (that of NCC, a single value, is multiplied by the
number of voxels), so that one step size serves every image size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from ..support.errors import InputError
from .kernels.filters import window_mean, window_mean_transposed
from .kernels.tracing import new_tensor

Weight = torch.Tensor | None

__all__ = [
    "LNCC",
    "MIND",
    "NCC",
    "SIMILARITIES",
    "SSD",
    "Similarity",
    "Term",
    "get_similarity",
    "local_correlation",
    "local_moments",
]

EPSILON = 1e-5
FLAT = 1e-4  # a variance, of images in [0, 1], that counts as noise

_known_moments = WeakTensorKeyDictionary()  # of fixed images


class Similarity(ABC):
    """Compares two images. A new similarity is a subclass of this class and an entry in SIMILARITIES.

    Calling it with a fixed and a warped image, shape (B, 1, *spatial), gives the energy D, shape (B,). The methods
    ``energy``, ``derivative`` and ``residual`` take the results of :meth:`describe`, shape (B, C, *spatial), and
    optionally how much each voxel counts, from 0 to 1, shape (B, 1, *spatial).
    """

    def __call__(self, fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
        return self.energy(self.describe(fixed), self.describe(warped))

    def channels(self, spatial_dims: int) -> int:
        """Return C, the number of channels of a description."""
        return 1

    def describe(self, image: torch.Tensor) -> torch.Tensor:
        """Map an image, (B, 1, *spatial), to what is compared, (B, C, *spatial); by default the image itself."""
        return image

    @abstractmethod
    def energy(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        """Return D, shape (B,)."""

    @abstractmethod
    def derivative(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        """Return dD/dW, shape (B, C, *spatial)."""

    @abstractmethod
    def residual(
        self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fit the intensities of W to those of F, so that D becomes a sum of squares.

        Returns:
            the difference of F and the fit, and the slope of the fit; each broadcasts to (B, C, *spatial).
        """


@dataclass(frozen=True)
class SSD(Similarity):
    """Sum of squared differences."""

    def energy(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        return _weighted((warped - fixed).square(), weight).flatten(1).sum(1)

    def derivative(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        return _weighted(2 * (warped - fixed), weight)

    def residual(
        self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return fixed - warped, new_tensor(torch.ones, [1] * fixed.ndim, fixed)


@dataclass(frozen=True)
class NCC(Similarity):
    """Negative squared normalised cross-correlation over the whole image, times the number of voxels."""

    def energy(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        _, _, covariance, variances = _global_moments(fixed, warped, weight)
        count = fixed[0].numel() if weight is None else weight.flatten(1).sum(1)
        return -count * (covariance.square() / (variances[0] * variances[1] + EPSILON)).flatten()

    def derivative(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        f, w, covariance, (var_fixed, var_warped) = _global_moments(fixed, warped, weight)
        denominator = var_fixed * var_warped + EPSILON
        return _weighted((covariance * var_fixed / denominator * w - f) * (2 * covariance / denominator), weight)

    def residual(
        self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        f, w, covariance, (var_fixed, var_warped) = _global_moments(fixed, warped, weight)
        slope = covariance / (var_warped + EPSILON)
        return var_fixed / (var_fixed + EPSILON) * f - slope * w, slope


@dataclass(frozen=True)
class LNCC(Similarity):
    """Negative squared normalised cross-correlation in a box window around each voxel, summed over the voxels.

    At the border the window holds only the voxels inside the image.

    Args:
        window_size: side of the window in voxels, an odd number.

    Raises:
        InputError: when the window is not a positive odd number.
    """

    window_size: int = 9

    def __post_init__(self) -> None:
        _check_window(self.window_size)

    def energy(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        correlation = local_correlation(fixed, warped, self.window_size, weight)
        return -_weighted(correlation, weight).flatten(1).sum(1)

    def derivative(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        moments = local_moments(fixed, warped, self.window_size, weight)
        covariance, var_fixed, var_warped, mean_fixed, mean_warped = moments
        denominator = var_fixed * var_warped + EPSILON
        by_covariance = -2 * covariance / denominator
        by_variance = covariance.square() * var_fixed / denominator.square()
        # transposed window means of dD/dcov and dD/dvar: cov = A(FW) - A(F)A(W), var = A(WW) - A(W)A(W)
        constant = by_covariance * mean_fixed + 2 * by_variance * mean_warped
        parts = _weighted(torch.cat([by_covariance, by_variance, constant], 1), weight)
        adjoint = window_mean_transposed(parts, self.window_size, weight)
        return fixed * adjoint[:, 0:1] + 2 * warped * adjoint[:, 1:2] - adjoint[:, 2:3]

    def residual(
        self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        moments = local_moments(fixed, warped, self.window_size, weight)
        covariance, var_fixed, var_warped, mean_fixed, mean_warped = moments
        slope = covariance / (var_warped + FLAT)
        # the fixed image is shrunk like the warped one, so that equal images leave no residual
        return var_fixed / (var_fixed + FLAT) * (fixed - mean_fixed) - slope * (warped - mean_warped), slope


@dataclass(frozen=True)
class MIND(Similarity):
    """Mean squared difference of self-similarities, which do not depend on what the intensities mean.

    M. P. Heinrich et al., "Towards realtime multimodal fusion for image-guided interventions using self-similarities",
    MICCAI 2013: MIND-SSC. Each channel compares the patches around two neighbours of a voxel that lie on different axes
    (12 pairs in 3D, 4 in 2D) by their mean squared difference. The smallest of these distances is subtracted from all,
    they are divided by their mean, and the channel is exp(-distance). A step warps the description of the moving image;
    a loss describes the warped image.

    Args:
        window_size: side of a patch in voxels, an odd number.
        distance: distance of the neighbours from the voxel, in voxels.

    Raises:
        InputError: when the window is not a positive odd number, or the distance is not positive.
    """

    window_size: int = 3
    distance: int = 1

    def __post_init__(self) -> None:
        _check_window(self.window_size)
        if self.distance < 1:
            raise InputError(f"distance must be at least 1, got {self.distance}.")

    def channels(self, spatial_dims: int) -> int:
        return 2 * spatial_dims * (spatial_dims - 1)

    def describe(self, image: torch.Tensor) -> torch.Tensor:
        axes = range(image.ndim - 2)
        padded = F.pad(image, [self.distance] * 2 * len(axes), mode="replicate")
        neighbours = [self._neighbour(padded, axis, start) for axis in axes for start in (0, 2 * self.distance)]
        # neighbours 2 k and 2 k + 1 lie on the same axis
        pairs = [(i, j) for i, j in combinations(range(len(neighbours)), 2) if i // 2 != j // 2]
        squares = torch.cat([(neighbours[i] - neighbours[j]).square() for i, j in pairs], 1)
        distances = window_mean(squares, self.window_size)
        smallest, mean = distances.amin(1, keepdim=True), distances.mean(1, keepdim=True)
        return torch.exp((smallest - distances) / (mean + FLAT))

    def _neighbour(self, padded: torch.Tensor, axis: int, start: int) -> torch.Tensor:
        for other, size in enumerate(padded.shape[2:]):
            first = start if other == axis else self.distance
            padded = padded.narrow(2 + other, first, size - 2 * self.distance)
        return padded

    def energy(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        return _weighted((warped - fixed).square().mean(1, keepdim=True), weight).flatten(1).sum(1)

    def derivative(self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None) -> torch.Tensor:
        return _weighted(2 * (warped - fixed) / fixed.shape[1], weight)

    def residual(
        self, fixed: torch.Tensor, warped: torch.Tensor, weight: Weight = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        slope = new_tensor(torch.ones, [1] * fixed.ndim, fixed) / math.sqrt(fixed.shape[1])
        return slope * (fixed - warped), slope


@dataclass(frozen=True)
class Term:
    """Channels of both images that are compared in one way.

    Args:
        similarity: how they are compared.
        fixed: channels of the fixed image, shape (B, C, *spatial).
        warped: the same channels of the warped image.
        gradient: derivative of ``warped`` with respect to the displacement, shape (B, C, d, *spatial).
    """

    similarity: Similarity
    fixed: torch.Tensor
    warped: torch.Tensor
    gradient: torch.Tensor


def local_correlation(
    fixed: torch.Tensor, warped: torch.Tensor, window_size: int = 9, weight: Weight = None
) -> torch.Tensor:
    """Compute the squared normalised cross-correlation in a window around each voxel, in [0, 1], (B, 1, *spatial)."""
    covariance, var_fixed, var_warped, _, _ = local_moments(fixed, warped, window_size, weight)
    return covariance.square() / (var_fixed * var_warped + EPSILON)


def _weighted(values: torch.Tensor, weight: Weight) -> torch.Tensor:
    return values if weight is None else weight * values


def _global_moments(
    fixed: torch.Tensor, warped: torch.Tensor, weight: Weight
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    axes = tuple(range(1, fixed.ndim))
    share = None if weight is None else weight / weight.mean(axes, keepdim=True).clamp(min=EPSILON)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return _weighted(values, share).mean(axes, keepdim=True)

    f, w = fixed - mean(fixed), warped - mean(warped)
    return f, w, mean(f * w), (mean(f.square()), mean(w.square()))


def local_moments(
    fixed: torch.Tensor, warped: torch.Tensor, window_size: int, weight: Weight = None
) -> tuple[torch.Tensor, ...]:
    """Compute moments in a window around each voxel, (B, 1, *spatial): covariance, both variances, and both means."""
    mean_f, var_f = _moments_of_fixed(fixed, window_size, weight)
    mean_w, mean_fw, mean_ww = window_mean(
        torch.cat([warped, fixed * warped, warped.square()], 1), window_size, weight
    ).split(1, 1)
    return mean_fw - mean_f * mean_w, var_f, mean_ww - mean_w.square(), mean_f, mean_w


def _moments_of_fixed(fixed: torch.Tensor, window_size: int, weight: Weight) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the local mean and variance; an evaluation keeps them while the image exists, for its other steps."""
    recorded = torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling()
    keep = weight is None and not recorded and not fixed.is_inference()
    state = (window_size, fixed._version if keep else 0)
    if keep and (known := _known_moments.get(fixed)) and known[0] == state:
        return known[1]
    mean, mean_square = window_mean(torch.cat([fixed, fixed.square()], 1), window_size, weight).split(1, 1)
    variance = mean_square - mean.square()
    if keep:
        _known_moments[fixed] = state, (mean, variance)
    return mean, variance


def _check_window(window_size: int) -> None:
    if window_size < 1 or window_size % 2 == 0:
        raise InputError(f"window_size must be a positive odd number, got {window_size}.")


SIMILARITIES: dict[str, type[Similarity]] = {"ssd": SSD, "ncc": NCC, "lncc": LNCC, "mind": MIND}


def get_similarity(similarity: str | Similarity, window_size: int = 9) -> Similarity:
    """Look up a similarity by name; an object is returned as it is.

    Args:
        similarity: a key of SIMILARITIES, or an object.
        window_size: side of the window of ``lncc``, in voxels; other names ignore it.

    Raises:
        InputError: when the name is unknown or the window is not a positive odd number.
    """
    if isinstance(similarity, Similarity):
        return similarity
    if similarity not in SIMILARITIES:
        raise InputError(f"unknown similarity '{similarity}': expected one of {', '.join(SIMILARITIES)}.")
    return LNCC(window_size) if similarity == "lncc" else SIMILARITIES[similarity]()
