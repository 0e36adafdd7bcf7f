"""Dense warps of FreeSurfer, ``.mgz``, as mri_warp_convert and SynthMorph write them.

Such a file is an image on the fixed grid ("target" or "atlas") with three frames, and in some files a fourth one of
labels. The upper bytes of its version say that it is a warp. Tags after the voxels hold the places of the moving image
("source") and of the fixed one, and in which of four forms the values say where a voxel goes.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.freesurfer import MGHImage
from nibabel.freesurfer.mghformat import DATA_OFFSET, footer_dtype

from ..support.errors import InputError
from .grid import apply_affine, lattice
from .transforms import Chain, Displacement, Transform, millimetres_on

__all__ = ["read_warp", "write_warp"]

MGH_VERSION, WARP = 1, 3  # a file's version is the kind of its content times 256, plus the version of the format
TAG_GEOMETRIES, TAG_FORM, TAG_OLD_XFORM = 10, 13, 30
WITHOUT_LENGTH = (1, 2, 11, 12, 20)  # tags that cannot be skipped
VOXELS, VOXEL_SHIFTS, POINTS, SHIFTS = range(
    4
)  # in the moving image: voxels, minus fixed ones; RAS mm, minus fixed ones

PLACE = [("shape", ">i4", (3,)), ("spacing", ">f4", (3,)), ("axes", ">f4", (3, 3)), ("middle", ">f4", (3,))]
GEOMETRY = np.dtype([("valid", ">i4"), *PLACE, ("file", "S512")])
FORM = np.dtype([("form", ">i4"), ("spacing", ">i4"), ("exponent", ">f4")])


def read_warp(path: Path, name: str) -> Chain:
    """Read a warp.

    Args:
        path: the file.
        name: what the file is, for messages.

    Raises:
        InputError: when it holds no warp, or a damaged one.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        kind = int.from_bytes(content[:4], "big") >> 8
        image = MGHImage.from_bytes(MGH_VERSION.to_bytes(4, "big") + content[4:])  # nibabel knows no warps
        values = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float64)).movedim(-1, 0)[:3]
        after = DATA_OFFSET + int(image.header.get_data_size()) + footer_dtype.itemsize
        tags = dict(_tags(content[after:])) if kind == WARP else {}
        source, target = np.frombuffer(tags.get(TAG_GEOMETRIES, bytes(2 * GEOMETRY.itemsize)), GEOMETRY)
        form = int(np.frombuffer(tags.get(TAG_FORM, bytes(FORM.itemsize)), FORM)["form"][0])
    except Exception as error:  # gzip, nibabel and numpy each have their own errors
        raise InputError(f"{name} cannot be read as a warp of FreeSurfer; it may be damaged.") from error
    if kind != WARP:
        raise InputError(f"{name} is not a warp of FreeSurfer: expected a file that mri_warp_convert wrote.")
    shape = tuple(values.shape[1:])
    if not source["valid"] or not target["valid"] or tuple(target["shape"]) != shape or len(values) != 3:
        raise InputError(f"{name} is a warp without its frames, or not on the whole grid of the fixed image.")
    if form not in range(4) or not torch.isfinite(values).all():
        raise InputError(f"{name} holds a warp of unknown form, or NaN or infinite values.")
    affine, voxels = _affine(target), lattice(shape, torch.float64)
    own = apply_affine(affine, voxels)
    if form in (VOXELS, VOXEL_SHIFTS):
        values = apply_affine(_affine(source), values if form == VOXELS else voxels + values)
    elif form == SHIFTS:
        values = own + values
    return Chain([Displacement((values - own).float(), affine)])


def write_warp(transform: Transform, path: Path, fixed: nib.Nifti1Image, moving: nib.Nifti1Image) -> None:
    """Write a transform as a warp on the grid of the fixed image, in RAS millimetres."""
    values = millimetres_on(transform, fixed).movedim(0, -1).float().numpy()
    content = bytearray(MGHImage(values, fixed.affine).to_bytes())
    content[:4] = (WARP << 8 | MGH_VERSION).to_bytes(4, "big")
    content += TAG_GEOMETRIES.to_bytes(4, "big") + _geometry(moving) + _geometry(fixed)
    form = np.array((SHIFTS, 1, 0), FORM).tobytes()
    content += TAG_FORM.to_bytes(4, "big") + len(form).to_bytes(8, "big") + form
    path.write_bytes(gzip.compress(bytes(content)))


def _tags(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the tags after the voxels of a file, each with its content."""
    start = 0
    while start + 4 <= len(content) and (tag := int.from_bytes(content[start : start + 4], "big")):
        if tag in WITHOUT_LENGTH:
            raise ValueError(f"the tag {tag} has no length")
        digits = 0 if tag == TAG_GEOMETRIES else 4 if tag == TAG_OLD_XFORM else 8
        first = start + 4 + digits
        length = 2 * GEOMETRY.itemsize if digits == 0 else int.from_bytes(content[start + 4 : first], "big")
        yield tag, content[first : first + length]
        start = first + length


def _affine(geometry: np.ndarray) -> torch.Tensor:
    """The map from voxels to RAS millimetres; the axes are one per row, and the middle is the voxel shape / 2."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy((geometry["axes"].T * geometry["spacing"]).astype(np.float64))
    matrix[:3, 3] = torch.from_numpy(geometry["middle"].astype(np.float64)) - matrix[:3, :3] @ (
        torch.from_numpy(geometry["shape"].astype(np.float64)) / 2
    )
    return matrix


def _geometry(image: nib.Nifti1Image) -> bytes:
    shape = np.array((*image.shape, 1)[:3])
    linear, spacing = image.affine[:3, :3], np.linalg.norm(image.affine[:3, :3], axis=0)
    middle = linear @ (shape / 2) + image.affine[:3, 3]
    return np.array((1, shape, spacing, (linear / spacing).T, middle, b"none"), GEOMETRY).tobytes()
