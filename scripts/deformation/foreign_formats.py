"""Transforms of FSL, FreeSurfer, Greedy, AFNI, Learn2Reg, MONAI and the exchange format X5, as maps of points."""

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
from ..support.notices import warn
from .formats import save_image
from .freesurfer_warps import read_warp, write_warp
from .grid import apply_affine, lattice
from .transforms import Affine, Chain, Displacement, ddf_on_grid, millimetres_on

__all__ = ["FSL_FIELDS", "Images", "affine_of", "read_foreign", "read_fsl_field", "write_foreign", "write_fsl"]

FSL_FIELDS = range(2006, 2017)  # the NIfTI intents of fnirt: a displacement field, and its kinds of coefficients
LINEAR = {".lta": "lta", ".1D": "afni"}  # suffixes, and the names that nitransforms has for them


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
            InputError: when one of them is missing, or in 2D; names the transform.
        """
        if self.fixed is None or self.moving is None:
            raise InputError(f"{name} does not hold its frames: expected --images FIXED MOVING, the registered images.")
        return _volume(self.fixed, name), _volume(self.moving, name)

    def reference(self, name: str) -> nib.Nifti1Image:
        """Return the fixed image, on whose grid a displacement is written.

        Raises:
            InputError: when it is missing; names the transform.
        """
        if self.fixed is None:
            raise InputError(f"{name} holds a displacement: expected --reference, an image on whose grid it lies.")
        return self.fixed


def _volume(image: nib.Nifti1Image, name: str) -> nib.Nifti1Image:
    """Return an image for a format that knows volumes alone."""
    if len(image.shape) < 3:
        raise InputError(f"{name} has a format for volumes, and the images are in 2D: expected a format of ITK.")
    return image


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
    """Read a file of another tool than ITK.

    Args:
        path: ``.mat``, a matrix of FSL's flirt; ``.txt``, one of Greedy; FreeSurfer's ``.lta`` and ``.mgz``; AFNI's
            ``.1D``; ``.x5``; Learn2Reg's ``.npz``; ``.pt`` with a ddf.
        name: what the file is, for messages.
        images: the registered images.

    Raises:
        InputError: when the file is damaged, or the images are missing.
    """
    try:
        match path.suffix:
            case ".npz" | ".pt":
                return _read_ddf(path, name, images)
            case ".mgz":
                return read_warp(path, name)
            case ".x5":
                return _read_x5(path, name)
            case ".lta" | ".1D":
                both = {"reference": images.fixed, "moving": images.moving}
                linear = _nitransforms("linear", name)
                return Chain([_affine(linear.load(path, fmt=LINEAR[path.suffix], **both).matrix)])
        if b"(Transform " in path.read_bytes():
            raise InputError(f"{name} is a file of elastix: expected a field, as transformix -def all makes it of it.")
        matrix = _affine(np.loadtxt(path, dtype=np.float64))
        back = matrix.inverse().matrix
    except InputError:
        raise
    except Exception as error:  # numpy, torch, h5py and nitransforms each have their own errors
        raise InputError(f"{name} cannot be read as a transform; it may be damaged.") from error
    if path.suffix == ".txt":
        return Chain([matrix])
    fixed, moving = images.both(name)  # flirt maps from the moving to the fixed image
    warn(f"{name} is read as a matrix of FSL's flirt; if it is one of Greedy, which looks alike, name it .txt.")
    return Chain([Affine(torch.linalg.inv(_to_fsl(moving)) @ back @ _to_fsl(fixed))])


def write_foreign(transform: Chain, path: Path, images: Images, name: str) -> None:
    """Write an affine map as ``.lta`` or ``.1D``, a field as ``.mgz``, ``.npz`` or ``.pt``, either as ``.x5``.

    Args:
        transform: the transform.
        path: the file.
        images: the registered images.
        name: what the file is, for messages.

    Raises:
        InputError: when the format cannot hold the transform, or needs images that are missing.
    """
    try:
        match path.suffix:
            case ".npz":
                _write_ddf(transform, path, _volume(images.reference(name), name))
            case ".pt":
                _write_ddf(transform, path, images.reference(name))
            case ".mgz":
                write_warp(transform, path, *images.both(name))
            case ".x5":
                _write_x5(transform, path, images, name)
            case _:
                fixed, moving = images.both(name)
                matrix = affine_of(transform, name).matrix.numpy()
                written = _nitransforms("linear", name).Affine(matrix, reference=fixed)
                written.to_filename(path, fmt=LINEAR[path.suffix], moving=moving)
    except (InputError, OSError):
        raise
    except Exception as error:  # nitransforms has its own errors, as for permuted axes in .1D, or single slices in .x5
        raise InputError(f"{name} cannot hold this transform between these images ({error}).") from error


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


def write_fsl(transform: Chain, path: Path, images: Images, name: str) -> None:
    """Write a matrix of flirt (``.mat``), or a relative field of fnirt (``.nii``, ``.nii.gz``).

    Args:
        transform: the transform.
        path: the file.
        images: the registered images.
        name: what the file is, for messages.

    Raises:
        InputError: when a matrix is asked for and the transform is a field, or the images are missing.
    """
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
    save_image(image, path)


def _read_ddf(path: Path, name: str, images: Images) -> Chain:
    """A displacement in voxels of the fixed image: at its resolution, or Learn2Reg's at half of it."""
    if images.fixed is None:
        raise InputError(f"{name} does not hold its frames: expected --images FIXED MOVING, the registered images.")
    shape = images.fixed.shape[:3]
    expected = (len(shape), *shape)
    if path.suffix == ".pt":
        values = torch.load(path, map_location="cpu", weights_only=True)
        values = values[0] if tuple(values.shape) == (1, *expected) else values
    else:
        with np.load(path) as content:
            values = torch.from_numpy(np.asarray(content["arr_0"], dtype=np.float32))
        if len(values) == 3 and all(n // 2 <= half <= (n + 1) // 2 for n, half in zip(shape, values.shape[1:])):
            factors = [n / half for n, half in zip(shape, values.shape[1:])]
            values = torch.from_numpy(np.stack([zoom(part, factors, order=2) for part in values.numpy()]))
    if tuple(values.shape) != expected or not torch.isfinite(values).all():
        found = f"{name} has shape {tuple(values.shape)}, or values that are not finite"
        raise InputError(f"{found}: expected {expected}, voxels of the fixed image.")
    ddf = torch.zeros(3, *(*shape, 1)[:3])
    ddf[: len(shape)] = values.reshape(len(shape), *ddf.shape[1:])
    affine = torch.from_numpy(images.fixed.affine).double()
    return Chain([Displacement(torch.tensordot(affine[:3, :3].float(), ddf, dims=1), affine)])


def _read_x5(path: Path, name: str) -> Chain:
    """An affine map, a displacement or deformation field, or B-spline coefficients, which become a field."""
    nodes = _nitransforms("io.x5", name).from_filename(path)
    if len(nodes) != 1 or nodes[0].type not in ("linear", "nonlinear"):
        raise InputError(f"{name} holds {len(nodes)} transforms, or a composite: expected one affine map or field.")
    (node,) = nodes
    if node.type == "linear":
        return Chain([_affine(node.transform)])
    nonlinear = _nitransforms("nonlinear", name)
    if node.subtype == "bspline":
        node = nonlinear.from_x5(nodes).to_field().to_x5()
    affine = torch.from_numpy(np.array(node.domain.mapping, dtype=np.float64))
    vectors = torch.from_numpy(np.array(node.transform, dtype=np.float64)).movedim(-1, 0)
    if node.representation != "displacements":
        vectors = vectors - apply_affine(affine, lattice(vectors.shape[1:], torch.float64))
    return Chain([Displacement(vectors.float().contiguous(), affine)])


def _write_x5(transform: Chain, path: Path, images: Images, name: str) -> None:
    affine = transform.as_affine()
    if affine is not None:
        written = _nitransforms("linear", name).Affine(affine.matrix.numpy(), reference=images.fixed)
    else:
        reference = _volume(images.reference(name), name)
        field = millimetres_on(transform, reference).movedim(0, -1).numpy()
        written = _nitransforms("nonlinear", name).DenseFieldTransform(field, reference=reference)
    _nitransforms("io.x5", name).to_filename(path, [written.to_x5()])


def _affine(matrix: Any) -> Affine:
    return Affine(torch.from_numpy(np.array(matrix, dtype=np.float64).reshape(4, 4)))


def _write_ddf(transform: Chain, path: Path, reference: nib.Nifti1Image) -> None:
    """Write a displacement in voxels of the reference: Learn2Reg's at half the resolution, or MONAI's."""
    shape = reference.shape[:3]
    ddf = ddf_on_grid(transform, torch.from_numpy(reference.affine), (*shape, 1)[:3])[: len(shape)]
    if path.suffix == ".pt":
        torch.save(ddf.reshape(len(shape), *shape).float(), path)
        return
    half = np.stack([zoom(part, 0.5, order=2) for part in ddf.numpy()])
    np.savez_compressed(path, half.astype(np.float16))


def _to_fsl(image: nib.Nifti1Image) -> torch.Tensor:
    """The map from RAS to FSL's millimetres: voxels times their size, with the first axis flipped if it is not LAS."""
    affine = torch.from_numpy(image.affine).double()
    scaled = torch.diag(torch.tensor([*affine[:3, :3].norm(dim=0), 1.0], dtype=torch.float64))
    flip = torch.eye(4, dtype=torch.float64)
    if torch.linalg.det(affine[:3, :3]) > 0:
        flip[0, 0], flip[0, 3] = -1, image.shape[0] - 1
    return scaled @ flip @ torch.linalg.inv(affine)


def _nitransforms(module: str, name: str) -> Any:
    found, exists = optional_import(f"nitransforms.{module}")
    if not exists:
        raise InputError(f"{name} needs nitransforms, which is not installed: pip install nitransforms.")
    return found
