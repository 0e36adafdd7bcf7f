"""The error that is to be expected of a displacement in each voxel, without knowing the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..deformation.grid import length
from ..networks.kernels.filters import gaussian
from ..networks.kernels.sampling import resize, warp
from ..networks.similarity import FLAT, local_moments
from .evidence import TISSUE, WINDOW
from .judge import read_learned

__all__ = ["FEATURES", "ErrorModel", "error_features", "find_tissue", "read_error_model"]

FEATURES = ("disagreement", "contrast", "mismatch", "inconsistency", "displacement", "roughness", "ambiguity")
AROUND = 1.5  # voxels: standard deviation of the window in which edges are looked for
NO_EDGE = 1e-5  # a squared slope, of images in [0, 1], that counts as none


@dataclass(frozen=True)
class ErrorModel:
    """Expects an error from the features of a voxel, and from their means over the pair.

    A weighted sum of both is nearly the logarithm of the error; a table from the sum to the error calibrates it.

    Args:
        weights: of each feature in the voxel, and then of its mean over the tissue.
        sums: weighted sums, rising.
        errors: the mean error, in voxels, that was found at each of these sums, not falling.
    """

    weights: Sequence[float]
    sums: Sequence[float]
    errors: Sequence[float]

    def __call__(self, features: torch.Tensor, tissue: torch.Tensor) -> torch.Tensor:
        """Return the expected length of the error in voxels, shape (B, 1, *spatial).

        Args:
            features: see :func:`error_features`; all samples of the batch are one pair, such as the slices of a stack.
            tissue: where the means are taken, boolean, shape (B, 1, *spatial), not empty.
        """
        values = features.movedim(1, -1)
        return self.look_up(self.total(values, values[tissue[:, 0]].mean(0)))[:, None]

    def total(self, values: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """Return the weighted sums, shape (...), of features (..., N) with the means (N)."""
        own, of_means = torch.tensor(self.weights, dtype=values.dtype).split(len(FEATURES))
        return values @ own + means @ of_means

    def look_up(self, total: torch.Tensor) -> torch.Tensor:
        """Return the error at each weighted sum, between the entries of the table; beyond it, that of its end."""
        return torch.from_numpy(np.interp(total.numpy(), self.sums, self.errors)).to(total.dtype)


def error_features(pairs: torch.Tensor, field: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Compute what an error is expected from, in the order of :data:`FEATURES`.

    All are logarithms:

    - how little the fixed and the warped image agree around a voxel;
    - the variance of the fixed image there;
    - the displacement, squared, that would explain the difference of the images;
    - how far a voxel is from where the displacement and the one back bring it;
    - the length of the displacement;
    - how much it changes from voxel to voxel, squared;
    - how little the warped image tells of a displacement: the squared error that noise of variance 1 would cause, which
      is large where there is no edge, or edges along one direction alone.

    Args:
        pairs: moving and fixed, in [0, 1], shape (B, 2, *spatial).
        field: the displacement in voxels, shape (B, d, *spatial).
        back: the displacement of the registration of the fixed image to the moving one, of the same shape.

    Returns:
        shape (B, 7, *spatial).
    """
    moving, fixed = pairs.split(1, 1)
    warped = warp(moving, field)
    covariance, var_fixed, var_warped, _, _ = local_moments(fixed, warped, WINDOW)
    tensor = _structure(warped)
    slope = tensor.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None]
    change = torch.cat([_gradient(part) for part in field.split(1, 1)], 1)
    found = [
        (1 - covariance / (torch.maximum(var_fixed, var_warped) + FLAT)).clamp(min=1e-3),
        var_fixed.clamp(min=0) + FLAT,
        gaussian((fixed - warped).square(), AROUND) / (slope + 1e-3) + 1e-3,
        gaussian(_lengths(field + warp(back, field)), 1.0) + 0.05,
        gaussian(_lengths(field), 2.0) + 0.1,
        gaussian(change.square().sum(1, keepdim=True), 1.0) + 1e-3,
        torch.linalg.inv(tensor + NO_EDGE * torch.eye(tensor.shape[-1])).diagonal(dim1=-2, dim2=-1).sum(-1)[:, None],
    ]
    return torch.cat(found, 1).log()


def find_tissue(pairs: torch.Tensor) -> torch.Tensor:
    """Return where the fixed image is brighter than the background, boolean, shape (B, 1, *spatial)."""
    return pairs[:, 1:2] > TISSUE


def halved(
    image: torch.Tensor, ddf: torch.Tensor, affine: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bring images, (C, X, Y, Z), and a ddf in voxels, (3, X, Y, Z), to half as many voxels; with the grid's affine."""
    size = [(n + 1) // 2 for n in ddf.shape[1:]]
    steps = torch.tensor([(n - 1) / max(m - 1, 1) for n, m in zip(ddf.shape[1:], size)], dtype=torch.float64)
    images, field = (resize(part[None], size)[0] for part in (image, ddf))
    scaling = torch.diag(torch.cat([steps.clamp(min=1), torch.ones(1).double()]))
    return images, field / steps.clamp(min=1).to(field).view(3, 1, 1, 1), affine @ scaling


def read_error_model(file: str | Path, task: str) -> ErrorModel | None:
    """Read what was learned for a task; None where nothing was.

    Args:
        file: a JSON file that ``python -m scripts.tools.errors`` has written.
        task: name of the task.

    Raises:
        InputError: when the file cannot be read.
    """

    def build(content: dict[str, Any]) -> ErrorModel | None:
        learned = content.get("error")
        return None if learned is None else ErrorModel(**learned)

    return read_learned(file, task, build)


def _lengths(vectors: torch.Tensor) -> torch.Tensor:
    return length(vectors.movedim(1, 0))[:, None]


def _gradient(values: torch.Tensor) -> torch.Tensor:
    """The derivatives of (B, 1, *spatial) by central differences, (B, d, *spatial); 0 along an axis of one voxel."""
    axes = range(2, values.ndim)
    parts = [torch.gradient(values, dim=n)[0] if values.shape[n] > 1 else torch.zeros_like(values) for n in axes]
    return torch.cat(parts, 1)


def _structure(image: torch.Tensor) -> torch.Tensor:
    """The mean product of each two derivatives of (B, 1, *spatial) around a voxel, (B, *spatial, d, d)."""
    slopes = _gradient(image)
    dims = slopes.shape[1]
    pairs = [(i, j) for i in range(dims) for j in range(i, dims)]
    means = gaussian(torch.cat([slopes[:, i : i + 1] * slopes[:, j : j + 1] for i, j in pairs], 1), AROUND)
    rows = [[means[:, pairs.index((min(i, j), max(i, j)))] for j in range(dims)] for i in range(dims)]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
