"""Reads and checks images and pairs of images; every error is one line that names the file."""

from __future__ import annotations

import gzip
import math
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import ResampleToMatch, Transform
from monai.utils import convert_to_tensor
from nibabel.spatialimages import SpatialImage

from ..support.command_line import number
from ..support.errors import InputError
from ..support.files import user_path
from ..support.keys import BRAIN_MASKS, IMAGES, LABELS, MASKS
from ..support.memory import GIB, memory_bytes
from ..support.notices import image_name, warn
from .dicom_cine import open_dicom_cine
from .frame import grid_corners, itk_affine, set_millimetres
from .other_formats import BY_ITK, BY_NIBABEL, open_by_itk, open_by_nibabel

__all__ = [
    "LoadPaird",
    "Source",
    "as_nifti",
    "check_same_grid",
    "open_image",
    "open_nifti",
    "read_mask",
    "read_nifti",
    "read_voxels",
]

LARGEST = 1e18  # value of an image; its square fits into single precision
DUST, MOST_DUST = 1e-3, 0.25  # of label maps: how far from a whole number is still that number
# that a registration takes for each voxel
BYTES = {"fixed": 50, "moving": 40, **dict.fromkeys((*LABELS, *MASKS, *BRAIN_MASKS), 8)}
MAX_TRAILER = 2**20  # bytes that a compressed file may hold behind its voxels

Source = str | Path | SpatialImage | MetaTensor
"""An image of the user's: a file, a nibabel image, or a MetaTensor of shape (1, X, Y, Z) or (1, X, Y)."""


def as_nifti(source: Source, role: str, cine: bool = False) -> nib.Nifti1Image:
    """Open a file, or convert an image in memory, to nibabel's image with its header.

    Args:
        source: see :data:`Source`.
        role: the key of the image (``fixed``, ``label_moving``, ...), for messages.
        cine: see :func:`open_image`.

    Raises:
        InputError: when there is no such file, it is not NIfTI, or the source is none of these.
    """
    if isinstance(source, str | Path):
        return open_image(source, role, cine)
    if isinstance(source, SpatialImage):
        image = source if isinstance(source, nib.Nifti1Image) else nib.Nifti1Image.from_image(source)
        with_own_affine = not np.array_equal(image.affine, image.header.get_best_affine(), equal_nan=True)
        return image if with_own_affine else _in_frame_of_itk(image, role)
    if not isinstance(source, MetaTensor) or source.ndim not in (3, 4) or source.shape[0] != 1:
        found = f" of shape {tuple(source.shape)}" if isinstance(source, torch.Tensor) else ""
        raise InputError(
            f"{role} is a {type(source).__name__}{found}: expected a path, a nibabel image, "
            "or a MetaTensor of shape (1, X, Y, Z), which knows its affine."
        )
    values = source.as_tensor()[0].detach().cpu()
    array = (values.float() if values.is_floating_point() else values).numpy()
    array = array.astype(np.uint8) if array.dtype == bool else array
    image = nib.Nifti1Image(array, to_affine_nd(3, source.affine.double().cpu().numpy()), dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    return image


def open_image(path: str | Path, role: str, cine: bool = False) -> nib.Nifti1Image:
    """Open an image file, or the folder of a DICOM series, in ITK's frame.

    Args:
        path: NIfTI (``.nii``, ``.nii.gz``, ``.img`` with ``.hdr``), FreeSurfer (``.mgz``, ``.mgh``), NRRD (``.nrrd``,
            ``.nhdr``), MetaImage (``.mha``, ``.mhd``), or a folder with one DICOM series.
        role: what the file is (``fixed``, ``label_moving``, ...), for messages.
        cine: whether a folder of DICOM files holds the frames of a cine, see :func:`open_dicom_cine`.

    Raises:
        InputError: when there is no such file, or it cannot be read.
    """
    path = user_path(path, role)
    opened = open_by_nibabel if path.name.endswith(BY_NIBABEL) else open_by_itk
    if cine and path.is_dir():
        opened = open_dicom_cine
    if not path.is_dir() and not (path.is_file() and path.name.endswith((*BY_NIBABEL, *BY_ITK))):
        return open_nifti(path, role)
    with _reported_as_damage(f"{role}: {path}", path.suffix.upper()[1:] or "DICOM"):
        image = opened(path, f"{role}: {path}")
    image.file_map["image"].filename = str(path)
    return _in_frame_of_itk(image, role)


def open_nifti(path: str | Path, role: str) -> nib.Nifti1Image:
    """Open a NIfTI file: its header and affine, which is ITK's, are read, its voxels not yet.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.
        role: what the file is (``fixed``, ``label_moving``, ...), for messages.

    Raises:
        InputError: when there is no such file, or it is not NIfTI.
    """
    path = user_path(path, role)
    if path.is_dir():
        raise InputError(
            f"{role}: {path} is a folder: expected a NIfTI file (.nii or .nii.gz); dcm2niix makes one of DICOM files."
        )
    if not path.is_file():
        raise InputError(f"{role}: {path} does not exist: expected a NIfTI file (.nii or .nii.gz).")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{role}: {path} is not named as a NIfTI file: expected .nii or .nii.gz.")
    with _reported_as_damage(f"{role}: {path}"):
        image = cast(nib.Nifti1Image, nib.load(path))
        image.header.get_best_affine()  # whose errors are those of a damaged header
    return _in_frame_of_itk(image, role)


def _in_frame_of_itk(image: nib.Nifti1Image, role: str) -> nib.Nifti1Image:
    """Return the same image where ITK places it, in millimetres; see :func:`itk_affine`."""
    affine = itk_affine(image.header, f"{role}: {_name(image)}")
    if np.array_equal(affine, image.affine):
        return image
    header = image.header.copy()
    set_millimetres(header)
    return type(image)(image.dataobj, affine, header, file_map=image.file_map)


def read_voxels(image: nib.Nifti1Image, role: str, dtype: type | None = None) -> np.ndarray:
    """Read the voxels of an open file, with its scale factors applied.

    A compressed file is read to its end, so that its checksum is compared, which nibabel does not do.

    Args:
        image: the open file.
        role: what the file is, for messages.
        dtype: data type of the result; None means that of the file.

    Raises:
        InputError: when the file is damaged.
    """
    file = image.get_filename() or ""
    needed, there = math.prod(image.shape) * image.get_data_dtype().itemsize, memory_bytes(None)
    if needed > there:
        raise InputError(f"{role}: {_name(image)} holds {needed / GIB:.3g} GiB, and {there / GIB:.3g} are there.")
    with _reported_as_damage(f"{role}: {_name(image)}"):
        if not file.endswith(".gz") or not nib.is_proxy(image.dataobj):
            return np.asanyarray(image.dataobj, dtype=dtype)
        with gzip.open(file) as stream:
            proxy: Any = image.dataobj
            spec = proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter
            voxels = np.asanyarray(nib.arrayproxy.ArrayProxy(stream, spec, mmap=False), dtype=dtype)
            if len(stream.read(MAX_TRAILER + 1)) > MAX_TRAILER:
                raise ValueError("it goes on behind its last voxel")
        return voxels


@contextmanager
def _reported_as_damage(name: str, form: str = "NIfTI") -> Iterator[None]:
    """Turn the errors of nibabel, gzip, zlib and numpy for a damaged file into one."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name} cannot be read as {form}; it may be damaged ({reason}).") from error


def read_nifti(source: Source, role: str, spatial_dims: int = 3, label: bool = False) -> MetaTensor:
    """Read and check an image or a label map.

    Args:
        source: a ``.nii`` or ``.nii.gz`` file, or an image in memory. Trailing axes of size 1 are dropped.
        role: what the file is (``fixed``, ``label_moving``, ...), for messages.
        spatial_dims: 2 or 3, as the network. 3 expects a volume; 2 expects a stack of slices (X, Y, Z), or one slice
            (X, Y), which becomes a stack of one.
        label: whether whole numbers are wanted.

    Returns:
        shape (1, X, Y, Z), with the affine (voxel to RAS millimetres) of the file, see :func:`itk_affine`: an image as
        float32, a label map as int32, or as int64 where its ids need that.

    Raises:
        InputError: when the file is not what is expected.
    """
    image = as_nifti(source, role)
    data = read_voxels(image, role)
    name = f"{role}: {_name(source)}"
    _check_shape(data, name, spatial_dims)
    if data.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {data.dtype} values: expected real numbers, one per voxel.")
    data = data.reshape((*data.shape, 1, 1)[:3])
    slope = getattr(image.dataobj, "slope", 0.0) if label else 0.0
    values = _label_values(data, name, slope) if label else _image_values(data, name)
    affine = np.asarray(image.affine, dtype=np.float64)
    check_affine(affine, name)
    return MetaTensor(
        torch.from_numpy(values)[None], affine=torch.from_numpy(affine), meta={"filename_or_obj": _name(source)}
    )


def check_affine(affine: np.ndarray, name: str) -> None:
    """Raise an :class:`InputError` unless an affine, 4x4, can be inverted and has voxels of a nanometre to a kilometre.

    Args:
        affine: voxel to RAS millimetres.
        name: name of the image, for the message.
    """
    sizes = np.linalg.svd(affine[:3, :3], compute_uv=False) if np.isfinite(affine).all() else np.zeros(3)
    if min(sizes) < 1e-6 or max(sizes) > 1e6 or min(sizes) < 1e-6 * max(sizes):
        raise InputError(f"{name} has an affine that cannot be inverted: expected a valid sform or qform.")


def _name(source: Source) -> str:
    """Return the name of an image in messages."""
    if isinstance(source, SpatialImage):
        return source.get_filename() or "the image in memory"
    return str(Path(source).expanduser()) if isinstance(source, str | Path) else "the image in memory"


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
    if min((*shape, 1)[:2]) < 2:
        raise InputError(f"{name} is one voxel wide, of shape {shape}: expected slices of two voxels or more each way.")


def _image_values(data: np.ndarray, name: str) -> np.ndarray:
    """Intensities in single precision, finite; NaN, another tool's background, is the minimum."""
    if data.dtype.kind == "f":
        missing = _count_missing(data, name)
        if missing == data.size:
            raise InputError(f"{name} holds nothing but NaN: expected an image.")
        if missing:
            warn(f"{name} holds {missing} NaN values ({missing / data.size:.1%}): taken as background.")
            data = np.where(np.isnan(data), np.nanmin(data), data)
    low, high = data.min(), data.max()
    if max(abs(float(low)), abs(float(high))) > LARGEST or 0 < float(high) - float(low) < 1 / LARGEST:
        raise InputError(f"{name} holds values from {low:g} to {high:g}: expected a range between 1e-18 and 1e18.")
    result = np.ascontiguousarray(data, dtype=np.float32)
    if low != high and result.min() == result.max():
        raise InputError(f"{name} is constant in single precision, from {low} to {high}: expected an image.")
    return result


def _label_values(data: np.ndarray, name: str, slope: float) -> np.ndarray:
    """Return ids as int32, or int64 if necessary; small errors of a scaled file or of a resampling are rounded."""
    if data.dtype.kind == "f":
        missing = _count_missing(data, name)
        if missing:
            warn(f"{name} holds {missing} NaN values ({missing / data.size:.1%}): taken as background.")
            data = np.where(np.isnan(data), 0, data)
        whole = np.round(data)
        dust = float(np.abs(data - whole).max())
        if dust > min(MOST_DUST, max(DUST, 0.51 * abs(slope))):  # a scaled file holds multiples of the slope
            raise InputError(f"{name} holds fractions: expected the whole numbers of a label map.")
        if dust:
            warn(f"{name} holds numbers that are up to {dust:.2g} off a whole one: rounded.")
        data = whole
    low, high = data.min(), data.max()
    if low < -(2**31) or high >= 2**32:
        raise InputError(f"{name} holds ids from {low:g} to {high:g}: expected whole numbers of up to 32 bits.")
    return np.ascontiguousarray(data, dtype=np.int32 if high < 2**31 else np.int64)


def _count_missing(data: np.ndarray, name: str) -> int:
    """Count the NaN values; infinite values are an error."""
    finite = np.isfinite(data)
    if finite.all():
        return 0
    missing = int(np.isnan(data).sum())
    infinite = data.size - int(finite.sum()) - missing
    if infinite:
        raise InputError(f"{name} holds {infinite} infinite values: expected none.")
    return missing


class LoadPaird(Transform):
    """Read and check the images of a pair: ``fixed``, ``moving`` and, where given, ``label_fixed``, ``label_moving``.

    Args:
        spatial_dims: 2 or 3, as the network. 3 expects volumes; 2 expects stacks with slices along the last axis.
        memory_limit: GiB that the whole registration may take; None means all that is free.

    Raises:
        InputError: when an image is not usable, or a label lies on another grid than its image, or the registration
            would take more memory, which is known from the headers.
    """

    def __init__(self, spatial_dims: int, memory_limit: float | None = None) -> None:
        self.spatial_dims = spatial_dims
        self.memory_limit = None if memory_limit is None else number("memory_limit", memory_limit, above=0)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        _check_memory(data, self.memory_limit)
        result = dict(data)
        for key in IMAGES:
            result[key] = read_nifti(data[key], key, self.spatial_dims)
            if self.spatial_dims == 2:
                _check_stack(result[key], f"{key}: {_name(data[key])}")
            label = f"label_{key}"
            if label in data:
                result[label] = read_nifti(data[label], label, self.spatial_dims, label=True)
                check_same_grid(result[label], result[key], f"{label}: {_name(data[label])}", _name(data[key]))
        return result


def _check_memory(data: Mapping[Hashable, Any], limit: float | None) -> None:
    """Compare what the registration of a pair takes with what it may take, before any voxel is read."""
    shapes = {key: as_nifti(data[key], key).shape for key in BYTES if key in data}
    needed, there = sum(BYTES[key] * math.prod(shape) for key, shape in shapes.items()), memory_bytes(limit)
    if needed > there:
        largest = max(shapes, key=lambda key: math.prod(shapes[key]))
        raise InputError(
            f"{largest}: {_name(data[largest])} has {' x '.join(map(str, shapes[largest]))} voxels: the registration "
            f"needs about {needed / GIB:.3g} GiB, and {there / GIB:.3g} are there (--memory_limit)."
        )


def _check_stack(image: MetaTensor, name: str) -> None:
    spacing = [round(float(s), 3) for s in image.pixdim]
    if image.shape[3] > 1 and spacing[2] < 0.99 * max(spacing):
        raise InputError(f"{name} has spacing {spacing} mm: expected a stack with its slices along the last axis.")


def check_same_grid(label: MetaTensor, image: MetaTensor, name: str, image_name: str) -> None:
    """Raise an :class:`InputError` unless a label map lies on the grid of its image, to a tenth of a voxel.

    Args:
        label: shape (1, X, Y, Z).
        image: shape (1, X, Y, Z).
        name: name of the label map, for the message.
        image_name: name of the image, for the message.
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


def read_mask(source: Any, role: str, image: MetaTensor, spatial_dims: int) -> MetaTensor:
    """Read a mask, or probabilities, as 1 and 0 on the grid of its image, to which it is resampled where it must be.

    Raises:
        InputError: when the file is not usable, holds fractions that are no probabilities, or marks no voxel.
    """
    mask = read_nifti(source, role, spatial_dims)
    values = convert_to_tensor(mask, track_meta=False)
    whole = bool((values == values.round()).all())
    if not whole and (values.min() < 0 or values.max() > 1):
        raise InputError(
            f"{role}: {image_name(mask)} holds fractions from {values.min():g} to {values.max():g}: expected whole "
            "numbers, 0 where the image does not count, or probabilities."
        )
    mask = MetaTensor((values != 0 if whole else values >= 0.5).float(), meta=mask.meta)
    try:
        check_same_grid(mask, image, role, "its image")
    except InputError:
        mask = cast(MetaTensor, ResampleToMatch(mode="nearest", padding_mode="zeros")(mask, image))
    if not mask.any():
        raise InputError(
            f"{role}: {image_name(mask)} marks no voxel of {image_name(image)}: expected a number other than 0 where "
            "the image counts."
        )
    return mask
