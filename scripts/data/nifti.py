"""Reading of one NIfTI file, with every complaint in one line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from ..errors import InputError

__all__ = ["read_nifti"]


def read_nifti(path: str | Path, role: str, spatial_dims: int = 3, label: bool = False) -> MetaTensor:
    """Read and check an image or a label map.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file. Trailing axes of size 1 are dropped.
        role: what the file is (``fixed``, ``label_moving``, ...), for messages.
        spatial_dims: of the network: 3 wants a volume, 2 a stack of slices (X, Y, Z) or one slice (X, Y), which
            becomes a stack of one.
        label: whether whole numbers are wanted; an image must not be constant.

    Returns:
        shape (1, X, Y, Z), float32, with the affine (voxel to RAS millimetres) of the file.

    Raises:
        InputError: when the file is not what is expected.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{role}: {path} does not exist: expected a NIfTI file (.nii or .nii.gz).")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{role}: {path} is not named as a NIfTI file: expected .nii or .nii.gz.")
    try:
        image = cast(nib.Nifti1Image, nib.load(path))
        data = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel, gzip, zlib and numpy each have their own errors for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{role}: {path} cannot be read as NIfTI, is it whole? ({reason})") from error
    _check_shape(data, f"{role}: {path}", spatial_dims)
    data = data.reshape((*data.shape, 1, 1)[:3])
    _check_values(data, f"{role}: {path}", label)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{role}: {path} has an affine that cannot be inverted: expected a valid sform or qform.")
    tensor = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
    return MetaTensor(tensor[None], affine=torch.from_numpy(affine), meta={"filename_or_obj": str(path)})


def _check_shape(data: np.ndarray, name: str, spatial_dims: int) -> None:
    shape = data.shape
    if data.size == 0:
        raise InputError(f"{name} is empty: found shape {shape}, expected at least one voxel.")
    significant = max((axis + 1 for axis, n in enumerate(shape) if n > 1), default=0)
    if significant > 3:
        raise InputError(
            f"{name} is a {significant}D image of shape {shape}: expected 3D; extract one frame of it first."
        )
    if spatial_dims == 3 and min((*shape, 1, 1)[:3]) < 2:
        raise InputError(f"{name} is a 2D image of shape {shape}: this model expects 3D volumes.")


def _check_values(data: np.ndarray, name: str, label: bool) -> None:
    if data.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {data.dtype} values: expected real numbers, one a voxel.")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"{name} holds {np.count_nonzero(~np.isfinite(data))} NaN or infinite values: expected none.")
    if label and data.dtype.kind == "f" and not np.array_equal(data, np.round(data)):
        raise InputError(f"{name} holds fractions: expected the whole numbers of a label map.")
    if not label and data.min() == data.max():
        raise InputError(f"{name} is constant, every voxel is {data.flat[0]}: expected an image.")
