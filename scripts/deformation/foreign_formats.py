"""Transforms of FSL, FreeSurfer, AFNI and Learn2Reg, and of the exchange format X5, as maps of points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.utils import optional_import
from scipy.ndimage import zoom

from ..images.loading import read_voxels
from ..support.errors import InputError
from .grid import apply_affine, lattice
from .transforms import Affine, Chain, Displacement, ddf_on_grid

__all__ = ["FSL_FIELDS", "Images", "affine_of", "read_foreign", "read_fsl_field", "write_foreign", "write_fsl"]

FSL_FIELDS = range(2006, 2017)  # the NIfTI intents of fnirt: a displacement field, and its kinds of coefficients
LINEAR = {".lta": "lta", ".1D": "afni", ".x5": "x5"}  # suffixes, and the names that nitransforms has for them


@dataclass(frozen=True)
class Images:
    """The images between which a transform maps, for formats that do not hold their frames.

    Args:
        fixed: the fixed image, FSL's reference; None if it is not known.
        moving: the moving image, FSL's input; None if it is not known.
    """

    fixed: nib.Nifti1Image | None = None
    moving: nib.Nifti1Image | None = None

    def both(self, name: str) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
        """Return both images.

        Raises:
            InputError: when one of them is missing; names the transform.
        """
        if self.fixed is None or self.moving is None:
            raise InputError(f"{name} does not hold its frames: expected --images FIXED MOVING, the registered images.")
        return self.fixed, self.moving

    def reference(self, name: str) -> nib.Nifti1Image:
        """Return the fixed image, on whose grid a displacement is written.

        Raises:
            InputError: when it is missing; names the transform.
        """
        if self.fixed is None:
            raise InputError(f"{name} holds a displacement: expected --reference, an image on whose grid it lies.")
        return self.fixed


def affine_of(transform: Chain, name: str) -> Affine:
    """Return a transform as one affine map, for formats that hold nothing else.

    Raises:
        InputError: when it is a field; names the transform.
    """
    affine = transform.as_affine()
    if affine is None:
        raise InputError(f"{name} would hold an affine map, but the transform is a field: expected .nii.gz.")
    return affine


def read_foreign(path: Path, name: str, images: Images) -> Chain:
    """Read a matrix of FSL, FreeSurfer's ``.lta``, AFNI's ``.1D``, an affine ``.x5``, or Learn2Reg's ``.npz``.

    Raises:
        InputError: when the file is damaged, or the images are missing.
    """
    try:
        if path.suffix == ".npz":
            return _read_learn2reg(path, name, images)
        if path.suffix in LINEAR:
            linear = _nitransforms(name)
            both = {"reference": images.fixed, "moving": images.moving}
            matrix = linear.load(path, fmt=LINEAR[path.suffix], **both).matrix
            return Chain([Affine(torch.from_numpy(np.array(matrix, dtype=np.float64).reshape(4, 4)))])
        back = torch.linalg.inv(torch.from_numpy(np.loadtxt(path, dtype=np.float64)).reshape(4, 4))
    except InputError:
        raise
    except Exception as error:  # numpy, torch, h5py and nitransforms each have their own errors
        raise InputError(f"{name} cannot be read as a transform; it may be damaged.") from error
    fixed, moving = images.both(name)  # flirt maps from the moving to the fixed image
    return Chain([Affine(torch.linalg.inv(_to_fsl(moving)) @ back @ _to_fsl(fixed))])


def write_foreign(transform: Chain, path: Path, images: Images) -> None:
    """Write an affine map as ``.lta``, ``.1D`` or ``.x5``, or a field as Learn2Reg's ``.npz``.

    Raises:
        InputError: when the format cannot hold the transform, or needs images that are missing.
    """
    name = f"output: {path}"
    if path.suffix == ".npz":
        reference = images.reference(name)
        ddf = ddf_on_grid(transform, torch.from_numpy(reference.affine), reference.shape[:3])
        # Learn2Reg's form: half the resolution, in voxels of the full one
        np.savez_compressed(path, np.stack([zoom(part, 0.5, order=2) for part in ddf.numpy()]).astype(np.float16))
        return
    affine = affine_of(transform, name)
    fixed, moving = images.both(name) if path.suffix != ".x5" else (images.fixed, images.moving)
    written = _nitransforms(name).Affine(affine.matrix.numpy(), reference=fixed)
    written.to_filename(path, fmt=LINEAR[path.suffix], moving=moving)


def read_fsl_field(image: nib.Nifti1Image, name: str, images: Images) -> Chain:
    """Read a displacement field of fnirt, relative or absolute.

    Its values are on the fixed grid, and lead to the moving image, in FSL's millimetres of either. It is absolute if
    the values vary more than their differences to the grid's own coordinates, which is how FSL decides it.

    Raises:
        InputError: when the file holds coefficients in place of displacements, or the images are missing.
    """
    if image.header["intent_code"] != FSL_FIELDS[0] or image.shape[3:] != (3,):
        raise InputError(f"{name} holds coefficients of fnirt: expected its field, fnirt --fout or fnirtfileutils.")
    _, moving = images.both(name)
    affine, voxels = torch.from_numpy(image.affine).double(), lattice(image.shape[:3], torch.float64)
    values = torch.from_numpy(read_voxels(image, name, np.float64)).movedim(-1, 0)
    own = apply_affine(_to_fsl(image) @ affine, voxels)
    absolute = (values - own).flatten(1).std(1).sum() < values.flatten(1).std(1).sum()
    found = apply_affine(torch.linalg.inv(_to_fsl(moving)), values if absolute else own + values)
    return Chain([Displacement((found - apply_affine(affine, voxels)).float(), affine)])


def write_fsl(transform: Chain, path: Path, images: Images) -> None:
    """Write a matrix of flirt (``.mat``), or a relative field of fnirt (``.nii``, ``.nii.gz``).

    Raises:
        InputError: when a matrix is asked for and the transform is a field, or the images are missing.
    """
    name = f"output: {path}"
    fixed, moving = images.both(name)
    if path.suffix == ".mat":
        back = _to_fsl(moving) @ affine_of(transform, name).matrix @ torch.linalg.inv(_to_fsl(fixed))
        np.savetxt(path, torch.linalg.inv(back).numpy(), fmt="%.10f")
        return
    world, shape = torch.from_numpy(fixed.affine).double(), fixed.shape[:3]
    voxels = lattice(shape, torch.float64)
    found = apply_affine(world, voxels + ddf_on_grid(transform, world, shape))
    field = apply_affine(_to_fsl(moving), found) - apply_affine(_to_fsl(fixed) @ world, voxels)
    image = nib.Nifti1Image(field.movedim(0, -1).float().numpy(), fixed.affine)
    image.header.set_intent(FSL_FIELDS[0], allow_unknown=True)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _read_learn2reg(path: Path, name: str, images: Images) -> Chain:
    """A displacement in voxels of the fixed image, (3, X, Y, Z), at its resolution or at half of it."""
    if images.fixed is None:
        raise InputError(f"{name} does not hold its frames: expected --images FIXED MOVING, the registered images.")
    with np.load(path) as content:
        values = np.asarray(content["arr_0"], dtype=np.float32)
    shape = images.fixed.shape[:3]
    if values.shape[1:] != shape:
        factors = [size / half for size, half in zip(shape, values.shape[1:])]
        values = np.stack([zoom(part, factors, order=2) for part in values])
    affine = torch.from_numpy(images.fixed.affine).double()
    return Chain([Displacement(torch.tensordot(affine[:3, :3].float(), torch.from_numpy(values), dims=1), affine)])


def _to_fsl(image: nib.Nifti1Image) -> torch.Tensor:
    """The map from RAS to FSL's millimetres: voxels times their size, with the first axis flipped if it is not LAS."""
    affine = torch.from_numpy(image.affine).double()
    scaled = torch.diag(torch.tensor([*affine[:3, :3].norm(dim=0), 1.0], dtype=torch.float64))
    flip = torch.eye(4, dtype=torch.float64)
    if torch.linalg.det(affine[:3, :3]) > 0:
        flip[0, 0], flip[0, 3] = -1, image.shape[0] - 1
    return scaled @ flip @ torch.linalg.inv(affine)


def _nitransforms(name: str) -> Any:
    linear, found = optional_import("nitransforms.linear")
    if not found:
        raise InputError(f"{name} needs nitransforms, which is not installed: pip install nitransforms.")
    return linear
