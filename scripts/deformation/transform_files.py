"""Transforms as files, in the format that the name of a file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.utils import optional_import

from ..images.frame import RAS_TO_LPS, affine_of_itk, place_in_itk
from ..images.loading import open_nifti
from ..support.errors import InputError
from ..support.files import replace_file, user_path
from .foreign_formats import FSL_FIELDS, Images, affine_of, read_foreign, read_fsl_field, write_foreign, write_fsl
from .formats import ddf_to_itk, read_vectors, save_image
from .transforms import Affine, Chain, Displacement, Spline, Transform, ddf_on_grid

__all__ = ["read_transform", "write_transform"]

sitk, _ = optional_import("SimpleITK")

SIGNS = torch.from_numpy(RAS_TO_LPS).view(3, 1, 1, 1)
FLIP = torch.diag(torch.tensor([*RAS_TO_LPS, 1.0], dtype=torch.float64))
FIELDS = (".nii", ".nii.gz")
HDF5 = (".h5", ".hdf5")
ITK = (".tfm", ".txt", ".mat", *HDF5)
FOREIGN = (".lta", ".mgz", ".1D", ".x5", ".npz", ".pt")
SUFFIXES = (*FIELDS, *ITK, *FOREIGN)


def read_transform(path: str | Path, role: str = "transform", images: Images | None = None) -> Chain:
    """Read a transform from the fixed to the moving world.

    Args:
        path: ``.nii`` or ``.nii.gz`` with displacements of ITK, ANTs, Greedy, AFNI or fnirt; ``.tfm``, ``.txt``,
            ``.mat`` or ``.h5`` of ITK with affine maps, displacement fields, B-splines and composites of them; ``.mat``
            of flirt; ``.lta`` and dense ``.mgz`` of FreeSurfer; ``.1D`` of AFNI; ``.x5``; ``.npz`` of Learn2Reg;
            ``.pt`` with a ddf.
        role: what the file is, for messages.
        images: the registered images, which FSL's formats, ``.npz`` and ``.pt`` need, and AFNI's for oblique images.
            With 2D images, transforms of ITK may be in 2D.

    Raises:
        InputError: when the file is not such a transform.
    """
    path, images = user_path(path, role), images or Images()
    name = f"{role}: {path}"
    if path.name.endswith(FIELDS):
        image = open_nifti(path, role)
        if int(image.header["intent_code"]) in FSL_FIELDS:
            return read_fsl_field(image, name, images)
        vectors, affine = read_vectors(path, role)
        full = torch.zeros(3, *vectors.shape[1:])
        full[: len(vectors)] = vectors
        return Chain([Displacement(full, affine)])
    if path.suffix not in (*ITK, *FOREIGN):
        raise InputError(f"{name} is not named as a transform: expected one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise InputError(f"{name} does not exist: expected a file with a transform.")
    if path.suffix in FOREIGN:
        return read_foreign(path, name, images)
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        if path.suffix in (".mat", ".txt"):  # a matrix of another tool
            return read_foreign(path, name, images)
        raise InputError(f"{name} cannot be read as a transform of ITK.") from error
    return Chain(_parts(transform, name, {3, _dims(images.fixed)}))


def _dims(image: nib.Nifti1Image | None) -> int:
    return 2 if image is not None and len(image.shape) == 2 else 3


def _parts(transform: Any, name: str, dims: set[int]) -> list[Transform]:
    transform = transform.Downcast()
    if isinstance(transform, sitk.CompositeTransform):  # the last one is applied first
        count = transform.GetNumberOfTransforms()
        return [part for i in reversed(range(count)) for part in _parts(transform.GetNthTransform(i), name, dims)]
    if transform.GetDimension() not in dims:
        raise InputError(f"{name} is a transform in {transform.GetDimension()}D: expected one in 3D, or 2D images.")
    if transform.IsLinear():
        return [Affine(_matrix(transform))]
    if isinstance(transform, sitk.DisplacementFieldTransform):
        return [_displacement(transform.GetDisplacementField())]
    if isinstance(transform, sitk.BSplineTransform) and transform.GetDimension() == 3:
        return [_spline(transform)]
    raise InputError(
        f"{name} is a {transform.GetName()}: expected affine maps, displacement fields, B-splines, or composites."
    )


def _matrix(transform: Any) -> torch.Tensor:
    """The matrix in RAS of any linear transform of ITK, from where it takes the origin and the unit vectors."""
    dims = transform.GetDimension()
    origin = np.array(transform.TransformPoint([0.0] * dims))
    columns = [np.array(transform.TransformPoint(unit)) - origin for unit in np.eye(dims).tolist()]
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:dims, :dims] = torch.from_numpy(np.column_stack(columns))
    matrix[:dims, 3] = torch.from_numpy(origin)
    return FLIP @ matrix @ FLIP


def _displacement(field: Any) -> Displacement:
    dims = field.GetDimension()
    values = torch.from_numpy(sitk.GetArrayFromImage(field))  # the last axis first, and vectors last
    vectors = torch.zeros(3, *(*field.GetSize(), 1)[:3])
    vectors[:dims] = values.permute(*reversed(range(dims + 1))).reshape(dims, *vectors.shape[1:])
    return Displacement(vectors * SIGNS.float(), torch.from_numpy(affine_of_itk(field)))


def _spline(transform: Any) -> Spline:
    images = transform.GetCoefficientImages()
    parts = [torch.from_numpy(sitk.GetArrayFromImage(image)).permute(2, 1, 0) for image in images]
    affine = torch.from_numpy(affine_of_itk(images[0]))
    return Spline((torch.stack(parts) * SIGNS).double().contiguous(), affine, transform.GetOrder())


def write_transform(transform: Chain, path: str | Path, images: Images, fsl: bool = False) -> None:
    """Write a transform in the format that the name of the file says.

    Args:
        transform: the transform.
        path: ``.nii`` or ``.nii.gz`` for a displacement field of ITK (millimetres, LPS, intent 1007); ``.tfm``,
            ``.txt`` or ``.mat`` for an affine map; ``.h5`` and ``.x5`` for either; ``.lta`` and ``.1D`` for affine
            maps; ``.mgz`` for a dense warp of FreeSurfer; ``.npz`` for Learn2Reg; ``.pt`` for a ddf
            as MONAI's ``Warp`` takes it: in voxels, shape (3, X, Y, Z). For a 2D image, the formats of ITK and MONAI
            are in 2D.
        images: the fixed image, on whose grid a displacement is written, and the moving one, which some formats need.
        fsl: write ``.mat`` and ``.nii.gz`` as flirt and fnirt do.

    Raises:
        InputError: when the name fits none of these, or an image is missing.
    """
    path = user_path(path, "output")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"output: {path} is not named as a transform: expected one of {', '.join(SUFFIXES)}.")
    if fsl and not path.name.endswith((".mat", *FIELDS)):
        raise InputError(f"output: {path} is not a format of FSL: expected .mat, .nii or .nii.gz.")
    if fsl:
        replace_file(path, lambda file: write_fsl(transform, file, images, f"output: {path}"))
    elif path.suffix in FOREIGN:
        replace_file(path, lambda file: write_foreign(transform, file, images, f"output: {path}"))
    else:
        _write_itk(transform, path, images)


def _write_itk(transform: Chain, path: Path, images: Images) -> None:
    affine = transform.as_affine()
    if affine is not None and path.suffix in ITK:
        replace_file(path, lambda file: sitk.WriteTransform(_to_itk(affine, _dims(images.fixed)), str(file)))
        return
    if path.suffix in (".tfm", ".txt", ".mat"):
        affine_of(transform, f"output: {path}")
    reference = images.reference(f"output: {path}")
    ddf = ddf_on_grid(transform, torch.from_numpy(reference.affine), (*reference.shape, 1)[:3])
    image = ddf_to_itk(ddf.numpy(), reference)
    if path.suffix in HDF5:
        replace_file(path, lambda file: sitk.WriteTransform(_field_to_itk(image), str(file)))
    else:
        replace_file(path, lambda file: save_image(image, file))


def _to_itk(affine: Affine, dims: int) -> Any:
    matrix = (FLIP @ affine.matrix @ FLIP).numpy()
    result = sitk.AffineTransform(dims)
    result.SetMatrix(matrix[:dims, :dims].flatten().tolist())
    result.SetTranslation(matrix[:dims, 3].tolist())
    return result


def _field_to_itk(image: nib.Nifti1Image) -> Any:
    vectors = np.asarray(image.dataobj, dtype=np.float64)[:, :, :, 0].transpose(2, 1, 0, 3)
    vectors = vectors[0] if vectors.shape[3] == 2 else vectors
    field = sitk.GetImageFromArray(np.ascontiguousarray(vectors), isVector=True)
    place_in_itk(field, image.affine)
    return sitk.DisplacementFieldTransform(field)
