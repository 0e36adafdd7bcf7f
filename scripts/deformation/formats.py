"""Displacement fields and images as files."""

from __future__ import annotations

import nibabel as nib
import numpy as np

__all__ = ["ddf_from_itk", "ddf_to_itk", "image_like"]

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def ddf_to_itk(ddf: np.ndarray, reference: nib.Nifti1Image) -> nib.Nifti1Image:
    """The displacement field that ITK, ANTs, SimpleITK and 3D Slicer read: millimetres, LPS, vector intent 1007.

    d_mm = R d_voxel with R the 3x3 part of the reference's affine, first two components negated (RAS to LPS). For a
    2D reference (X, Y) the field has two components.

    Args:
        ddf: shape (3, X, Y, Z), in voxels of the reference.
        reference: the fixed image, whose grid and header the file takes.
    """
    linear = reference.affine[:3, :3]
    vectors = np.einsum("ij,jxyz->xyzi", linear, ddf) * RAS_TO_LPS
    components = 2 if len(reference.shape) == 2 else 3
    image = image_like(vectors[:, :, :, None, :components].astype(np.float32), reference)
    image.header.set_intent("vector", name="")
    return image


def ddf_from_itk(image: nib.Nifti1Image) -> np.ndarray:
    """The inverse of :func:`ddf_to_itk` for 3D fields: shape (3, X, Y, Z), in voxels of the file's own grid.

    Raises:
        ValueError: when the file is not of shape (X, Y, Z, 1, 3).
    """
    if image.ndim != 5 or image.shape[3:] != (1, 3):
        raise ValueError(f"a displacement field must have shape (X, Y, Z, 1, 3), got {image.shape}.")
    vectors = image.get_fdata(dtype=np.float64)[:, :, :, 0] * RAS_TO_LPS
    return np.einsum("ij,xyzj->ixyz", np.linalg.inv(image.affine[:3, :3]), vectors).astype(np.float32)


def image_like(data: np.ndarray, reference: nib.Nifti1Image) -> nib.Nifti1Image:
    """An image on the grid and with the header of the reference, in the data type of ``data``.

    The affine is written as sform and as qform, so that readers that prefer either one agree.
    """
    header = reference.header.copy()
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    image = nib.Nifti1Image(data, reference.affine, header)
    code = int(reference.header["sform_code"]) or int(reference.header["qform_code"]) or 1
    image.set_sform(reference.affine, code)
    image.set_qform(reference.affine, code)
    return image
