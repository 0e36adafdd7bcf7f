"""Displacement fields and images as files."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.utils import optional_import

from ..images.frame import RAS_TO_LPS, set_millimetres
from ..images.loading import open_nifti, read_voxels
from ..support.errors import InputError
from ..support.slabs import slabs
from .grid import apply_affine, lattice, sample_grid

__all__ = ["ddf_to_itk", "image_like", "label_type", "read_displacement", "read_vectors", "save_image"]

igzip, HAS_ISAL = optional_import("isal.igzip")

COMPRESSION = 1  # of both libraries; more takes longer and hardly saves anything
DISPLACEMENT_VECTOR = 1006  # a NIfTI intent; ITK reads the vectors of such a file as RAS, all others as LPS


def ddf_to_itk(ddf: np.ndarray, reference: nib.Nifti1Image) -> nib.Nifti1Image:
    """Convert a ddf to the image that ITK, ANTs, SimpleITK and 3D Slicer read: millimetres, LPS, vector intent 1007.

    d_mm = R d_voxel, where R is the 3x3 part of the reference's affine, with the first two components negated (RAS to
    LPS). For a 2D reference (X, Y), the field has two components.

    Args:
        ddf: shape (3, X, Y, Z), in voxels of the reference.
        reference: the fixed image, whose grid and header the result takes.

    Returns:
        an image of shape (X, Y, Z, 1, 3), or (X, Y, 1, 1, 2).
    """
    linear = torch.from_numpy(RAS_TO_LPS[:, None] * reference.affine[:3, :3])
    vectors = np.empty((*ddf.shape[1:], 3), np.float32, order="F")  # the order of the file
    for rows in slabs(ddf.shape[1:]):
        part = torch.from_numpy(ddf[:, rows]).double().flatten(1)
        for axis, values in enumerate((linear @ part).float().view(3, *ddf[0, rows].shape).numpy()):
            vectors[rows, ..., axis] = values
    components = 2 if len(reference.shape) == 2 else 3
    image = image_like(vectors[:, :, :, None, :components], reference)
    image.header.set_intent("vector", name="")
    return image


def read_displacement(path: str | Path, role: str, affine: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Read a displacement field that ITK, ANTs or Greedy wrote, and resample it to a grid.

    Args:
        path: a NIfTI file of shape (X, Y, Z, 1, 3), or (X, Y, 1, 1, 2) for one slice, on any grid. It holds vectors
            from fixed to moving points in mm: LPS as ITK and ANTs write them, or RAS where the intent of the header is
            1006, a displacement vector. They are interpolated linearly, and are 0 outside their grid, as in ITK.
        role: what the file is, for error messages.
        affine: voxel to RAS millimetres of the wanted grid, shape (4, 4).
        shape: the three sizes of the wanted grid.

    Returns:
        the ddf in voxels of the wanted grid, shape (3, *shape), float32.

    Raises:
        InputError: when the file is not such a field.
    """
    vectors, own_affine = read_vectors(path, role)
    affine = affine.double()
    to_own = torch.linalg.solve(own_affine, affine)
    millimetres = sample_grid(vectors, shape, lambda rows: apply_affine(to_own, lattice(shape, rows=rows)), fill=0)
    # a field with two components only knows its own plane
    components = len(vectors)
    linear = torch.linalg.inv(affine[:components, :components]).float()
    ddf = torch.zeros(3, *shape)
    ddf[:components] = torch.tensordot(linear, millimetres, dims=1)
    return ddf


def read_vectors(path: str | Path, role: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Read vectors in RAS millimetres, shape (components, X, Y, Z), and the affine of their grid.

    Raises:
        InputError: when the file is not a displacement field.
    """
    name = f"{role}: {path}"
    image = open_nifti(path, role)
    data = read_voxels(image, role, np.float32)
    if data.shape[3:] != (1, 3) and data.shape[2:] != (1, 1, 2):
        raise InputError(
            f"{name} has shape {data.shape}: expected a displacement field as ITK writes it, "
            "(X, Y, Z, 1, 3), or (X, Y, 1, 1, 2) for one slice."
        )
    if not np.isfinite(data).all():
        raise InputError(f"{name} holds {np.count_nonzero(~np.isfinite(data))} NaN or infinite values: expected none.")
    in_ras = int(image.header["intent_code"]) == DISPLACEMENT_VECTOR
    vectors = data[:, :, :, 0] * (1 if in_ras else RAS_TO_LPS[: data.shape[4]])
    return torch.from_numpy(vectors.astype(np.float32)).movedim(-1, 0), torch.from_numpy(image.affine).double()


def label_type(ids: np.ndarray) -> type[np.signedinteger | np.unsignedinteger]:
    """The data type in which a label map is written: int32 where its ids fit into it, as nearly always."""
    if ids.max(initial=0) < 2**31:
        return np.int32
    return np.uint32 if ids.min() >= 0 else np.int64


def image_like(data: np.ndarray, reference: nib.Nifti1Image) -> nib.Nifti1Image:
    """Make an image on the grid and with the header of the reference, in the data type of ``data``.

    The affine is written as sform and as qform, so that all readers agree, whichever of the two they prefer.
    """
    header = reference.header.copy()
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    set_millimetres(header)
    header["cal_min"] = header["cal_max"] = 0
    image = nib.Nifti1Image(data, reference.affine, header)
    code = int(reference.header["sform_code"]) or int(reference.header["qform_code"]) or 1
    image.set_sform(reference.affine, code)
    image.set_qform(reference.affine, code)
    return image


def save_image(image: nib.Nifti1Image, path: Path) -> None:
    """Write an image; ``.gz`` by isal, in a tenth of zlib's time, where it is installed. Equal images, equal bytes."""
    if path.suffix != ".gz":
        nib.save(image, path)
        return
    compressed: Any = igzip.IGzipFile if HAS_ISAL else gzip.GzipFile
    with path.open("wb") as file, compressed("", "wb", COMPRESSION, file, mtime=0) as stream:
        _write_nifti(image, stream)


def _write_nifti(image: nib.Nifti1Image, stream: Any) -> None:
    """Write what nibabel writes, plane by plane; of a displacement, nibabel copies a third at a time."""
    image.update_header()
    header = image.header.copy()
    header.set_slope_inter(1, 0)
    header.write_to(stream)
    stream.write(bytes(header.get_data_offset() - stream.tell()))
    values = np.asarray(image.dataobj).T  # a file has the first axis of the image as its fastest
    for plane in values.reshape(-1, *values.shape[-2:]):
        stream.write(plane.astype(header.get_data_dtype(), copy=False).tobytes())
