"""Reads the images and fields of one pair for its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor

from ..deformation.formats import read_vectors
from ..deformation.transform_files import read_transform
from ..images.intensities import find_range, tissue_floor
from ..images.loading import as_nifti, read_nifti
from ..results.measures import scale
from ..support.errors import InputError
from ..support.files import sha256
from .entries import Entry

__all__ = ["VOLUMES", "Grid", "Volumes", "scaled"]

VOLUMES = {  # the files on the grid of the fixed image
    "warped": "moving_warped.nii.gz",
    "label_warped": "label_warped.nii.gz",
    "jacobian": "jacobian_determinant.nii.gz",
    "error": "error_mm.nii.gz",
}


@dataclass(frozen=True)
class Grid:
    """The grid of the fixed image: its shape, and the map from voxels to RAS millimetres, (4, 4)."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def sides(self, i: int, j: int) -> tuple[str, str, str, str]:
        """The directions in which the axes i, to the right, and j, upwards, come from and lead to."""
        letters = dict(zip("LRPAIS", "RLAPSI"))
        right, top = (nib.aff2axcodes(self.affine)[axis] or "" for axis in (i, j))
        return letters.get(right, ""), right, letters.get(top, ""), top


class Volumes:
    """What a pair has on the grid of its fixed image, read when it is asked for.

    Raises:
        InputError: when no result on this grid is there, or, from all methods, when a file is not usable.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        files = (entry.output(name) for name in VOLUMES.values())
        file = next((file for file in files if file is not None), None)
        if file is None:
            raise InputError("There are no pictures: no result on the grid of the fixed image is there.")
        image = as_nifti(file, "result")
        x, y, z = (*image.shape, 1, 1)[:3]
        self.grid = Grid((x, y, z), image.affine)

    def read(self, key: str) -> np.ndarray | None:
        """Read one volume; None if it was not written or given.

        Args:
            key: one of :data:`VOLUMES`, ``fixed`` or ``label_fixed``.

        Returns:
            shape (X, Y, Z): intensities in [0, 1] as for the network, ids, determinants or errors in mm.
        """
        file = self.entry.output(VOLUMES[key]) if key in VOLUMES else self._input(key)
        if file is None:
            return None
        image = read_nifti(file, key, spatial_dims=2, label=key.startswith("label"))
        values = convert_to_tensor(image[0], track_meta=False)
        if tuple(values.shape) != self.grid.shape:
            shape = tuple(values.shape)
            raise InputError(f"{key}: {file} has shape {shape}: expected that of the results, {self.grid.shape}.")
        if key == "fixed":
            return scaled(values, _limits(values))
        return scaled(values, self.moving_limits or _limits(values)) if key == "warped" else values.numpy()

    def field(self) -> np.ndarray | None:
        """Read the displacement in voxels, shape (3, X, Y, Z); None if it was not written."""
        file = self.entry.output("displacement.nii.gz")
        if file is None:
            return None
        vectors = read_vectors(file, "displacement")[0].numpy()
        if vectors.shape[1:] != self.grid.shape:
            shape = vectors.shape[1:]
            raise InputError(
                f"displacement: {file} has shape {shape}: expected that of the results, {self.grid.shape}."
            )
        count = len(vectors)  # 2 for a single slice
        ddf = np.zeros((3, *self.grid.shape), np.float32)
        ddf[:count] = np.tensordot(np.linalg.inv(self.grid.affine[:count, :count]), vectors, axes=1)
        return ddf

    @cached_property
    def moving(self) -> MetaTensor | None:
        """The moving image as it was given, (1, X, Y, Z) of its own grid; None if it was given in memory."""
        file = self._input("moving")
        return None if file is None else read_nifti(file, "moving", spatial_dims=2)

    @cached_property
    def moving_limits(self) -> Any:
        """The intensities of the moving image that become 0 and 1; None if it is not there."""
        try:
            return None if self.moving is None else _limits(convert_to_tensor(self.moving[0], track_meta=False))
        except InputError:
            return None

    @property
    def to_moving(self) -> np.ndarray | None:
        """The map from the grid to voxels of the moving image before the registration, (4, 4); None if not known."""
        if self.moving is None or not self.entry.knows_alignment:
            return None
        file = self.entry.output("alignment.mat")
        alignment = np.eye(4) if file is None else _matrix(file)
        return np.linalg.inv(self.moving.affine.numpy()) @ alignment @ self.grid.affine

    def _input(self, key: str) -> Path | None:
        """The file of an input, if it is that which was registered."""
        if key not in self.entry.inputs:
            return None
        path = Path(self.entry.inputs[key])
        if not path.exists():
            raise InputError(f"{key}: {path} is not there any more.")
        if sha256(path) != (self.entry.record.get("sha256") or {}).get(key):
            raise InputError(f"{key}: {path} has changed since the registration.")
        return path


def scaled(values: torch.Tensor, limits: Any) -> np.ndarray:
    """Scale intensities to [0, 1]."""
    return scale(values, limits).numpy()


def _limits(values: torch.Tensor) -> Any:
    return find_range(values.clamp(min=tissue_floor(values)).numpy())


def _matrix(file: Path) -> np.ndarray:
    """The affine map in ``alignment.mat``, shape (4, 4), between worlds in RAS millimetres."""
    chain = read_transform(file, "alignment")
    corners = torch.cat([torch.zeros(3, 1), torch.eye(3)], dim=1).double()
    there = chain(corners).numpy()
    return np.block([[there[:, 1:] - there[:, :1], there[:, :1]], [np.zeros(3), 1]])
