"""Transforms as maps of points, from the fixed to the moving world: affine maps, fields, B-splines and chains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.utils import optional_import
from scipy.ndimage import map_coordinates

from ..support.errors import InputError
from ..support.slabs import slabs
from .grid import apply_affine, lattice, sample
from .inversion import invert_ddf

__all__ = [
    "Affine",
    "Chain",
    "Displacement",
    "Inverted",
    "Spline",
    "Transform",
    "before_network",
    "check_interpolation",
    "ddf_on_grid",
    "millimetres_on",
    "resample",
]

sitk, _ = optional_import("SimpleITK")

INTERPOLATIONS = {
    "linear": "sitkLinear",
    "nearest": "sitkNearestNeighbor",
    "label": "sitkLabelLinear",
    "spline": "sitkBSpline3",
}
TOLERANCE = 1e-3  # voxels, of an inverse


class Transform(ABC):
    """A map of points. Called with points in RAS millimetres, shape (3, N), float64, it returns where they go."""

    @abstractmethod
    def __call__(self, points: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def inverse(self) -> Transform:
        """Return the map back."""


@dataclass(frozen=True, eq=False)
class Affine(Transform):
    """An affine map.

    Args:
        matrix: in RAS millimetres, shape (4, 4), float64.
    """

    matrix: torch.Tensor

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        return apply_affine(self.matrix, points)

    def inverse(self) -> Affine:
        return Affine(torch.linalg.inv(self.matrix))


@dataclass(frozen=True, eq=False)
class Displacement(Transform):
    """A displacement field, interpolated linearly; outside its grid, points stay where they are, as in ITK.

    Args:
        vectors: in RAS millimetres, shape (3, X, Y, Z), float32.
        affine: voxel to RAS millimetres of the grid, shape (4, 4), float64.
    """

    vectors: torch.Tensor
    affine: torch.Tensor

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        voxels = apply_affine(torch.linalg.inv(self.affine), points)
        return points + sample(self.vectors, voxels.float(), fill=0)

    def inverse(self) -> Inverted:
        return Inverted(self)


@dataclass(frozen=True, eq=False)
class Inverted(Transform):
    """The inverse of a displacement field, computed at the points that are asked for.

    The affine map that is nearest to the field is undone exactly, and the rest iteratively; outside the grid, the rest
    continues as it is at the border. Where the field folds, the result is the best point that was found.

    Args:
        field: the displacement field.
    """

    field: Displacement

    @cached_property
    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The affine part, in voxels of the grid, and the displacement before it, in voxels."""
        own = lattice(self.field.vectors.shape[1:], torch.float64)
        to_voxels = torch.linalg.inv(self.field.affine)[:3, :3]
        moved = own + torch.tensordot(to_voxels, self.field.vectors.double(), dims=1)
        matrix = _nearest_affine(own.flatten(1), moved.flatten(1))
        return matrix, (apply_affine(torch.linalg.inv(matrix), moved) - own).float()

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        matrix, displacement = self.parts
        start = apply_affine(torch.linalg.inv(self.field.affine @ matrix), points)
        back, _ = invert_ddf(displacement, TOLERANCE, where=start.float())
        return apply_affine(self.field.affine, start + back)

    def inverse(self) -> Displacement:
        return self.field


@dataclass(frozen=True, eq=False)
class Spline(Transform):
    """A displacement that is a B-spline; outside the region that its coefficients determine, points stay, as in ITK.

    Args:
        coefficients: in RAS millimetres, shape (3, X, Y, Z), float64.
        affine: coefficient to RAS millimetres, shape (4, 4), float64.
        order: order of the polynomials, 0 to 3.
    """

    coefficients: torch.Tensor
    affine: torch.Tensor
    order: int

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        places = apply_affine(torch.linalg.inv(self.affine), points)
        first = (self.order - 1) / 2
        last = torch.tensor(self.coefficients.shape[1:]).view(3, *[1] * (points.ndim - 1)) - 1 - first
        inside = ((places >= first) & (places <= last)).all(0)
        moved = [
            map_coordinates(part.numpy(), places.numpy(), order=self.order, mode="nearest", prefilter=False)
            for part in self.coefficients
        ]
        return points + torch.from_numpy(np.stack(moved)) * inside

    def inverse(self) -> Transform:
        raise InputError("the inverse of a B-spline is not known: convert it to a field, .nii.gz, and invert that.")


@dataclass(frozen=True, eq=False)
class Chain(Transform):
    """Several transforms, in the order in which a point passes through them; none is the identity.

    Args:
        transforms: the transforms.
    """

    transforms: Sequence[Transform]

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        for transform in self.transforms:
            points = transform(points)
        return points

    def inverse(self) -> Chain:
        return Chain([transform.inverse() for transform in reversed(self.transforms)])

    def as_affine(self) -> Affine | None:
        """Return the chain as one affine map, or None if it holds anything else."""
        matrix = torch.eye(4, dtype=torch.float64)
        for transform in self.transforms:
            part = transform.as_affine() if isinstance(transform, Chain) else transform
            if not isinstance(part, Affine):
                return None
            matrix = part.matrix @ matrix
        return Affine(matrix)


def before_network(data: Mapping[Hashable, Any]) -> Transform | None:
    """Return the map from the fixed to the moving world that comes before the network; None is the identity.

    Args:
        data: a preprocessed pair, with ``initial_transform``, or the affine ``alignment``, (4, 4).
    """
    if "initial_transform" in data:
        return data["initial_transform"]
    alignment = data["alignment"]
    return None if torch.equal(alignment, torch.eye(4).to(alignment)) else Affine(alignment)


def ddf_on_grid(
    transform: Transform, affine: torch.Tensor, shape: Sequence[int], target: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute where a transform takes the voxels of a grid, as a displacement.

    Args:
        transform: the transform.
        affine: voxel to RAS millimetres of the grid, shape (4, 4).
        shape: the three sizes of the grid.
        target: the same of the grid in whose voxels the points are expressed; by default the grid itself.

    Returns:
        points minus voxels, shape (3, *shape), float64.
    """
    affine = affine.double()
    back = torch.linalg.inv(affine if target is None else target.double())
    result = torch.empty(3, *shape, dtype=torch.float64)
    for rows in slabs(shape):
        part = result[:, rows]
        voxels = lattice(shape, torch.float64, rows)
        points = transform(apply_affine(affine, voxels.flatten(1)))
        part.copy_(apply_affine(back, points).view_as(part) - voxels)
    return result


def millimetres_on(transform: Transform, image: nib.Nifti1Image) -> torch.Tensor:
    """Compute how a transform displaces the voxels of an image, in RAS millimetres, shape (3, X, Y, Z), float64."""
    affine = torch.from_numpy(image.affine).double()
    return torch.tensordot(affine[:3, :3], ddf_on_grid(transform, affine, (*image.shape, 1, 1)[:3]), dims=1)


def resample(image: np.ndarray, ddf: torch.Tensor, interpolation: str, fill: float) -> np.ndarray:
    """Sample an image at the points of a grid.

    Args:
        image: shape (X, Y, Z), of any real type; whole numbers for ``nearest`` and ``label``.
        ddf: from :func:`ddf_on_grid`, in voxels of the image, shape (3, *spatial).
        interpolation: ``linear``; ``nearest``; ``label``, which interpolates each label linearly and takes the largest;
            or ``spline``, of third order.
        fill: the value of points that lie more than half a voxel outside the image.

    Returns:
        shape (*spatial,), in the type of the image.

    Raises:
        InputError: when the interpolation is unknown, or the image is too thin for a spline.
    """
    check_interpolation(interpolation, image.shape)
    # both grids in voxels, since ITK knows no sheared axes
    vectors = sitk.GetImageFromArray(np.ascontiguousarray(ddf.permute(3, 2, 1, 0).numpy()), isVector=True)
    size, moving = vectors.GetSize(), sitk.GetImageFromArray(np.ascontiguousarray(image.T))
    found = sitk.Resample(
        moving,
        size,
        sitk.DisplacementFieldTransform(vectors),
        getattr(sitk, INTERPOLATIONS[interpolation]),
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        fill,
    )
    return sitk.GetArrayFromImage(found).T


def check_interpolation(interpolation: object, shape: Sequence[int]) -> None:
    """Raise an :class:`InputError` if an interpolation is unknown, or an image of this shape is too thin for it."""
    if interpolation not in tuple(INTERPOLATIONS):
        raise InputError(f"unknown interpolation '{interpolation}': expected one of {', '.join(INTERPOLATIONS)}.")
    if interpolation == "spline" and (len(shape) < 3 or min(shape[:3]) < 4):
        raise InputError(f"a spline needs 4 voxels along each axis, the image has {tuple(shape)}: linear does not.")


def _nearest_affine(points: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """Fit the affine map that brings points to other points, both (3, N), by least squares; shape (4, 4)."""
    middle = points.mean(1, keepdim=True)
    centered = points - middle
    matrix = torch.eye(4, dtype=torch.float64)
    # an axis with one voxel says nothing of the map along it
    matrix[:3, :3] += (moved - points) @ torch.linalg.pinv(centered)
    matrix[:3, 3] = (moved.mean(1, keepdim=True) - matrix[:3, :3] @ middle).squeeze(1)
    return matrix
