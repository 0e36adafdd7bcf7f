"""Transforms of a pair that MONAI does not have; the rest of the preprocessing is MONAI's own, see the configs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from ..errors import InputError
from .nifti import read_nifti

__all__ = ["AlignWorldsd", "LoadPaird"]


class LoadPaird(Transform):
    """Read and check the files of a pair: ``fixed``, ``moving`` and, where given, ``label_fixed``, ``label_moving``.

    Args:
        spatial_dims: of the network: 3 wants volumes; 2 wants stacks whose slices lie along the last axis.

    Raises:
        InputError: when a file is not usable, or a label lies on another grid than its image.
    """

    def __init__(self, spatial_dims: int) -> None:
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in ("fixed", "moving"):
            result[key] = read_nifti(data[key], key, self.spatial_dims)
            if self.spatial_dims == 2:
                _check_stack(result[key], f"{key}: {data[key]}")
            label = f"label_{key}"
            if label in data:
                result[label] = read_nifti(data[label], label, self.spatial_dims, label=True)
                _check_same_grid(result[label], result[key], f"{label}: {data[label]}", str(data[key]))
        return result


class AlignWorldsd(Transform):
    """Bring the moving image to the fixed one before the network, by changing its affine only.

    Adds ``alignment``, the 4x4 map from the fixed to the moving world (pull-back, like a ddf), which the displacement
    takes in again on its way to the native grid.

    Args:
        mode: ``world`` trusts the scanner coordinates of both files (the identity); ``centers`` puts the centre of
            the moving image on that of the fixed one, for crops whose origin means nothing.

    Raises:
        InputError: when the mode is unknown, or the images do not overlap after alignment.
    """

    def __init__(self, mode: str = "world") -> None:
        if mode not in ("world", "centers"):
            raise InputError(f"unknown alignment '{mode}': expected world or centers.")
        self.mode = mode

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        fixed, moving = data["fixed"], data["moving"]
        alignment = torch.eye(4, dtype=torch.float64)
        if self.mode == "centers":
            alignment[:3, 3] = _center(moving) - _center(fixed)
        aligned = moving.clone()
        aligned.affine = torch.linalg.inv(alignment) @ moving.affine.double()
        if not _overlap(fixed, aligned):
            raise InputError(
                f"fixed: {fixed.meta['filename_or_obj']} and moving: {moving.meta['filename_or_obj']} do not overlap "
                f"in world space: found {_extent(fixed)} and {_extent(moving)}, expected a common part; "
                "--alignment centers ignores the origins."
            )
        return {**data, "moving": aligned, "alignment": alignment}


def _check_stack(image: MetaTensor, name: str) -> None:
    spacing = [round(float(s), 3) for s in image.pixdim]
    if image.shape[3] > 1 and spacing[2] < 0.99 * max(spacing):
        raise InputError(f"{name} has spacing {spacing} mm: expected a stack with its slices along the last axis.")


def _check_same_grid(label: MetaTensor, image: MetaTensor, name: str, image_name: str) -> None:
    if label.shape != image.shape:
        raise InputError(
            f"{name} has shape {tuple(label.shape[1:])}: expected {tuple(image.shape[1:])}, the grid of {image_name}."
        )
    corners = _corners(image)
    distance = (label.affine @ corners - image.affine @ corners)[:3].norm(dim=0).max().item()
    if distance > 0.1 * float(min(image.pixdim)):
        raise InputError(
            f"{name} lies up to {distance:.2f} mm off the grid of {image_name}: expected the same affine as its image."
        )


def _corners(image: MetaTensor) -> torch.Tensor:
    """The outer corners of the voxel grid in homogeneous voxel coordinates, (4, 8)."""
    ranges = [torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in image.shape[1:]]
    points = torch.stack(torch.meshgrid(*ranges, indexing="ij")).flatten(1)
    return torch.cat([points, torch.ones(1, points.shape[1], dtype=torch.float64)])


def _center(image: MetaTensor) -> torch.Tensor:
    return (image.affine.double() @ _corners(image))[:3].mean(1)


def _extent(image: MetaTensor) -> str:
    world = (image.affine.double() @ _corners(image))[:3].numpy()
    return " x ".join(f"{low:.0f}..{high:.0f}" for low, high in zip(world.min(1), world.max(1))) + " mm (R, A, S)"


def _overlap(fixed: MetaTensor, moving: MetaTensor) -> bool:
    """Whether any of a lattice of 16^3 points over the fixed image falls inside the moving one."""
    fractions = [(np.arange(16) + 0.5) / 16 * n - 0.5 for n in fixed.shape[1:]]
    points = np.stack(np.meshgrid(*fractions, indexing="ij")).reshape(3, -1)
    points = np.concatenate([points, np.ones((1, points.shape[1]))])
    found = np.linalg.solve(moving.affine.double().numpy(), fixed.affine.double().numpy()) @ points
    size = np.array(moving.shape[1:])[:, None]
    return bool(((found[:3] >= -0.5) & (found[:3] <= size - 0.5)).all(0).any())
