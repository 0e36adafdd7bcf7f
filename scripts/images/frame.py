"""Where a NIfTI file lies in space, as ITK, ANTs and 3D Slicer see it.

A header may place its image twice, by the qform and by the sform, or not at all. nibabel prefers the sform; ITK prefers
the qform where the two differ, and the voxel sizes of ``pixdim`` where the sform has others. People use the results in
programs built on ITK, together with their own files, so that ITK decides.
"""

from __future__ import annotations

import tempfile
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import optional_import

from ..support.errors import InputError

__all__ = [
    "FLIP",
    "RAS_TO_LPS",
    "affine_of_itk",
    "grid_corners",
    "itk_affine",
    "place_in_itk",
    "sample_points",
    "set_millimetres",
    "share_inside",
]

sitk, HAS_SIMPLEITK = optional_import("SimpleITK")

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])  # signs of the coordinates; the same for LPS to RAS
FLIP = np.diag([*RAS_TO_LPS, 1.0])
FORMS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
FIELDS = (*FORMS, "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units")  # all that ITK looks at
UNKNOWN, MILLIMETRES = 0, 2  # codes of NIfTI, in the lowest three bits of xyzt_units
TIMES = (8, 16, 24, 32, 40, 48)  # codes of the other bits
MAX_DIFFERENCE = 0.05  # voxels at the corners of an image; below it, two frames are the same


def itk_affine(header: nib.Nifti1Header, name: str) -> np.ndarray:
    """The affine from voxels to RAS millimetres that ITK finds in a header.

    Args:
        header: the header of a NIfTI file.
        name: name of the file, for messages.

    Returns:
        shape (4, 4). Where ITK and nibabel agree, as in nearly all files, it is nibabel's to the last digit.

    Raises:
        InputError: when ITK cannot place the file either, as it has no voxel size or is sheared.
    """
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if _is_plain(header, affine):
        return affine
    forms = [header[field] for field in FIELDS if header["sform_code"] > 0 or not field.startswith("srow")]
    if not all(np.isfinite(np.asarray(form, dtype=float)).all() for form in forms):
        raise InputError(f"{name} has no valid place in space: expected a valid sform or qform.")
    found = _read_by_itk(header, name)
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float).T
    corners[:3] *= np.array((*header.get_data_shape(), 1, 1)[:3])[:, None]
    apart = np.linalg.norm((affine - found) @ corners, axis=0).max()
    return affine if apart < MAX_DIFFERENCE * np.linalg.norm(found[:3, :3], axis=0).min() else found


def set_millimetres(header: nib.Nifti1Header, time_of: nib.Nifti1Header | None = None) -> None:
    """Say in a header that its unit of space is the millimetre; nibabel refuses headers with undefined units.

    Args:
        header: the header, which is changed.
        time_of: the header that gives the unit of time, by default the same one.
    """
    time = int((header if time_of is None else time_of)["xyzt_units"]) // 8 * 8
    header["xyzt_units"] = MILLIMETRES + (time if time in TIMES else 0)


def _is_plain(header: nib.Nifti1Header, affine: np.ndarray) -> bool:
    """Whether the header places the image once, at right angles and in millimetres, with the voxels of ``pixdim``."""
    sform, qform = header["sform_code"] > 0, header["qform_code"] > 0
    unit = int(header["xyzt_units"]) % 8
    if not (sform or qform) or unit not in (UNKNOWN, MILLIMETRES) or not np.isfinite(affine).all():
        return False
    zooms = np.asarray(header["pixdim"][1:4], dtype=float)
    if min(zooms) <= 0:
        return False
    directions = affine[:3, :3] / zooms
    if not np.allclose(directions.T @ directions, np.eye(3), atol=1e-4):
        return False
    if not (sform and qform):
        return True
    try:
        return np.allclose(header.get_qform(), affine, rtol=0, atol=1e-4 * min(zooms))
    except ValueError:  # of nibabel, for a quaternion that is none
        return False


def _read_by_itk(header: nib.Nifti1Header, name: str) -> np.ndarray:
    """What SimpleITK reads from an image of 2 x 2 x 2 voxels with the same frame."""
    if not HAS_SIMPLEITK:
        raise InputError(f"{name} has a qform and a sform that differ, or neither: SimpleITK is needed to place it.")
    small = nib.Nifti1Header()
    for field in FIELDS:
        small[field] = header[field]
    small["dim"] = (3, 2, 2, 2, 1, 1, 1, 1)
    small.set_data_dtype(np.uint8)
    small["magic"], small["vox_offset"] = b"n+1", 352
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with tempfile.NamedTemporaryFile(suffix=".nii") as file:
            file.write(small.binaryblock + b"\0" * 12)
            file.flush()
            reader = sitk.ImageFileReader()
            reader.SetFileName(file.name)
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(
            f"{name} has an affine that cannot be inverted, or is sheared, which ITK, ANTs and Slicer do not read: "
            "expected a valid sform or qform."
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    return affine_of_itk(reader)


def affine_of_itk(image: Any) -> np.ndarray:
    """The affine from voxels to RAS millimetres, shape (4, 4), of a SimpleITK image or reader in 2D or 3D."""
    dims = image.GetDimension()
    affine = np.eye(4)
    affine[:dims, :dims] = np.array(image.GetDirection()).reshape(dims, dims) * np.array(image.GetSpacing())
    affine[:dims, 3] = image.GetOrigin()
    return FLIP @ affine


def place_in_itk(image: Any, affine: np.ndarray) -> None:
    """Give a SimpleITK image in 2D or 3D the place of an affine from voxels to RAS millimetres, shape (4, 4)."""
    dims = image.GetDimension()
    linear, origin = (FLIP @ affine)[:dims, :dims], (FLIP @ affine)[:dims, 3]
    spacing = np.linalg.norm(linear, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection((linear / spacing).flatten().tolist())


def grid_corners(image: MetaTensor) -> torch.Tensor:
    """Return the outer corners of the voxel grid in homogeneous voxel coordinates, shape (4, 8)."""
    ranges = [torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in image.shape[1:]]
    points = torch.stack(torch.meshgrid(*ranges, indexing="ij")).flatten(1)
    return torch.cat([points, torch.ones(1, points.shape[1], dtype=torch.float64)])


def sample_points(image: MetaTensor, foreground: bool = False) -> torch.Tensor:
    """Return 16^3 points of an image in homogeneous world coordinates, shape (4, N), in millimetres.

    Args:
        image: shape (1, X, Y, Z), with its affine.
        foreground: leave out the points where the image has its minimum.
    """
    fractions = [(np.arange(16) + 0.5) / 16 * n - 0.5 for n in image.shape[1:]]
    points = np.stack(np.meshgrid(*fractions, indexing="ij")).reshape(3, -1)
    if foreground:
        values = image.as_tensor()[0][tuple(torch.from_numpy(points.round().astype(int)))]
        points = points[:, (values > image.min()).numpy()]
    return image.affine.double() @ torch.from_numpy(np.concatenate([points, np.ones((1, points.shape[1]))]))


def share_inside(points: torch.Tensor, image: MetaTensor, alignment: torch.Tensor) -> float:
    """Return the share of some points that a map between the worlds, shape (4, 4), takes into an image; 1 of none."""
    found = torch.linalg.solve(image.affine.double(), alignment @ points)[:3]
    size = torch.tensor(image.shape[1:])[:, None]
    inside = ((found >= -0.5) & (found <= size - 0.5)).all(0)
    return float(inside.double().mean()) if len(inside) else 1.0
