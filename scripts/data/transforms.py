"""Reading of a pair, with checks between its files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform

from ..errors import InputError
from .alignment import grid_corners
from .nifti import read_nifti

__all__ = ["LoadPaird", "check_same_grid"]


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
                check_same_grid(result[label], result[key], f"{label}: {data[label]}", str(data[key]))
        return result


def _check_stack(image: MetaTensor, name: str) -> None:
    spacing = [round(float(s), 3) for s in image.pixdim]
    if image.shape[3] > 1 and spacing[2] < 0.99 * max(spacing):
        raise InputError(f"{name} has spacing {spacing} mm: expected a stack with its slices along the last axis.")


def check_same_grid(label: MetaTensor, image: MetaTensor, name: str, image_name: str) -> None:
    """Raise an :class:`InputError` unless a label map lies on the grid of its image, to a tenth of a voxel.

    Args:
        label: shape (1, X, Y, Z).
        image: shape (1, X, Y, Z).
        name: of the label map, for the message.
        image_name: of the image, for the message.
    """
    if label.shape != image.shape:
        raise InputError(
            f"{name} has shape {tuple(label.shape[1:])}: expected {tuple(image.shape[1:])}, the grid of {image_name}."
        )
    corners = grid_corners(image)
    distance = (label.affine @ corners - image.affine @ corners)[:3].norm(dim=0).max().item()
    if distance > 0.1 * float(min(image.pixdim)):
        raise InputError(
            f"{name} lies up to {distance:.2f} mm off the grid of {image_name}: expected the same affine as its image."
        )
