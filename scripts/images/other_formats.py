"""Images in other formats than NIfTI, as nibabel's NIfTI images in memory: FreeSurfer, NRRD, MetaImage, DICOM."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.utils import optional_import

from ..support.errors import InputError
from .frame import affine_of_itk

__all__ = [
    "BY_ITK",
    "BY_NIBABEL",
    "UNEVEN",
    "as_nifti_in_memory",
    "need_simpleitk",
    "open_by_itk",
    "open_by_nibabel",
    "quiet_itk",
]

sitk, HAS_SIMPLEITK = optional_import("SimpleITK")

BY_NIBABEL = (".mgz", ".mgh", ".img", ".hdr")
BY_ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
UNEVEN = 0.01  # of the distance of slices, by which the slices of a DICOM series may be off


def open_by_nibabel(path: Path, name: str) -> nib.Nifti1Image:
    """Read FreeSurfer's ``.mgz`` and ``.mgh``, or a NIfTI pair ``.img`` and ``.hdr``.

    Args:
        path: the file.
        name: its role and name, for messages.

    Raises:
        InputError: when the pair is of Analyze 7.5, which does not say where left is.
    """
    if path.suffix in (".mgz", ".mgh"):
        data = path.read_bytes()
        # decompressed here, as its checksum is then compared
        found: Any = nib.MGHImage.from_bytes(gzip.decompress(data) if path.suffix == ".mgz" else data)
    else:
        found = nib.load(path)
        if not isinstance(found, nib.Nifti1Pair):
            raise InputError(f"{name} is Analyze 7.5, which does not say where left is: expected NIfTI.")
    values = np.asanyarray(found.dataobj)
    values = values.astype(values.dtype.newbyteorder("="))
    if isinstance(found, nib.Nifti1Pair):
        return nib.Nifti1Image(values, found.affine, found.header)
    return as_nifti_in_memory(values, np.asarray(found.affine, dtype=np.float64))


def open_by_itk(path: Path, name: str) -> nib.Nifti1Image:
    """Read NRRD, MetaImage, or the one series of a DICOM folder.

    Args:
        path: the file or folder.
        name: its role and name, for messages.

    Raises:
        InputError: when the folder does not hold exactly one series of evenly spaced slices, or the image is not a
            scalar one in 2D or 3D.
    """
    need_simpleitk(name)
    with quiet_itk():
        image = sitk.ReadImage(_series(path, name) if path.is_dir() else str(path))
    dims = image.GetDimension()
    if image.GetNumberOfComponentsPerPixel() != 1 or dims > 3:
        raise InputError(
            f"{name} has {dims} axes and {image.GetNumberOfComponentsPerPixel()} values per voxel: expected an image "
            "in 3D with one."
        )
    return as_nifti_in_memory(sitk.GetArrayFromImage(image).T, affine_of_itk(image))


def need_simpleitk(name: str) -> None:
    """Raise an :class:`InputError` where SimpleITK, which reads an image of this name, is not installed."""
    if not HAS_SIMPLEITK:
        raise InputError(f"{name} needs SimpleITK, which is not installed: pip install SimpleITK.")


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep back the warnings of ITK; what matters of them is checked here."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _series(folder: Path, name: str) -> Sequence[str]:
    """The files of the one DICOM series of a folder, in the order of their slices."""
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise InputError(f"{name} is a folder without DICOM images: expected an image file, or one DICOM series.")
    if len(series) > 1:
        raise InputError(f"{name} holds {len(series)} DICOM series: expected one; they are {', '.join(series)}.")
    files: Sequence[str] = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    origins = []
    for file in files:
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        reader.ReadImageInformation()
        origins.append(reader.GetOrigin())
    steps = np.diff(np.array(origins), axis=0)
    distances = np.linalg.norm(steps, axis=1)
    if len(steps) and np.abs(steps - steps.mean(0)).max() > UNEVEN * max(distances.mean(), 1e-6):
        raise InputError(
            f"{name} holds a DICOM series with slices {distances.min():.3g} to {distances.max():.3g} mm apart: "
            "expected one even stack; dcm2niix sorts frames and gaps."
        )
    return files


def as_nifti_in_memory(values: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """Return voxels, and the affine from voxels to RAS millimetres, as an image."""
    values = values.astype(np.uint8) if values.dtype == bool else values
    image = nib.Nifti1Image(np.ascontiguousarray(values), affine, dtype=values.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image
