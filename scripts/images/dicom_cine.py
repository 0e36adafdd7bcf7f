"""A cine in the files of a DICOM folder: slices sorted by their place, frames by their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.utils import optional_import

from ..support.errors import InputError
from .frame import FLIP
from .other_formats import UNEVEN, as_nifti_in_memory, need_simpleitk, quiet_itk

__all__ = ["open_dicom_cine"]

sitk, _ = optional_import("SimpleITK")

PREAMBLE, INDEX = (128, b"DICM"), "DICOMDIR"
TIMES = ("0018|1060", "0020|0100", "0020|0013")  # trigger time in ms, temporal position, number of the image
SAME_PLACE = 0.1  # mm
SAME_DIRECTION = 1e-3
LONGEST_STEP = 1.5  # usual steps from one frame to the next, at which no frame is missing


@dataclass(frozen=True)
class _Picture:
    """One slice of one frame.

    Args:
        values: (X, Y).
        origin: place of its first voxel, mm, LPS.
        axes: its two axes and their normal as columns, times the spacing, (3, 3).
        times: what is known of its time, in the order of :data:`TIMES`; None where it does not say.
    """

    values: np.ndarray
    origin: np.ndarray
    axes: np.ndarray
    times: tuple[float | None, ...]

    @property
    def height(self) -> float:
        """Where it lies along the normal, mm."""
        return float(self.origin @ self.axes[:, 2]) / float(np.linalg.norm(self.axes[:, 2]))


def open_dicom_cine(path: Path, name: str) -> nib.Nifti1Image:
    """Read the images of a folder and of all folders in it as one cine.

    Args:
        path: a folder with one file for each slice and frame, in any order: of one series, or of one for each slice.
        name: its role and name, for messages.

    Returns:
        shape (X, Y, Z, T), with the time of a frame in ms, if the files say it.

    Raises:
        InputError: when there are no such files, or they are not one even stack with equally many frames everywhere.
    """
    need_simpleitk(name)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != INDEX and _is_dicom(file)]
    if not files:
        raise InputError(f"{name} is a folder without DICOM images: expected a cine, as a file or as a DICOM series.")
    with quiet_itk():
        pictures = [_read(file, f"{name}, file {file.name}") for file in files]
    _check_alike(pictures, name)
    stack = _slices(pictures, name)
    frames, times = _frames(stack, name)
    origins = np.array([pictures[0].origin for pictures in frames])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = pictures[0].axes, origins[0]
    if len(frames) > 1:
        affine[:3, 2] = _step(origins, name)
    values = np.stack([np.stack([picture.values for picture in row], -1) for row in frames], 2)
    cine = as_nifti_in_memory(values, FLIP @ affine)
    if times is not None and times.shape[1] > 1:
        cine.header.set_zooms((*cine.header.get_zooms()[:3], _frame_ms(times, name)))
        cine.header.set_xyzt_units("mm", "msec")
    return cine


def _is_dicom(path: Path) -> bool:
    start, text = PREAMBLE
    with path.open("rb") as file:
        return file.read(start + len(text))[start:] == text


def _read(path: Path, name: str) -> _Picture:
    image = sitk.ReadImage(str(path))
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetSize()[2:] != (1,):
        raise InputError(f"{name}, holds several frames or colours: expected one grey image per file, see dcm2niix.")
    axes = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    times = tuple(_number(image, tag) for tag in TIMES)
    return _Picture(sitk.GetArrayFromImage(image)[0].T, np.array(image.GetOrigin()), axes, times)


def _number(image: Any, tag: str) -> float | None:
    try:
        return float(image.GetMetaData(tag)) if image.HasMetaDataKey(tag) else None
    except ValueError:
        return None


def _check_alike(pictures: Sequence[_Picture], name: str) -> None:
    first = pictures[0]
    for picture in pictures:
        if picture.values.shape != first.values.shape:
            sizes = [" x ".join(map(str, each.values.shape)) for each in (first, picture)]
            raise InputError(f"{name} holds images of {sizes[0]} and of {sizes[1]} pixels: expected one stack.")
        if np.abs(picture.axes - first.axes)[:, :2].max() > SAME_DIRECTION * np.abs(first.axes).max():
            raise InputError(f"{name} holds images of different directions or pixel sizes: expected one stack.")


def _slices(pictures: Sequence[_Picture], name: str) -> list[list[_Picture]]:
    """The images of each slice, in the order of the slices along their normal."""
    slices: list[list[_Picture]] = []
    for picture in sorted(pictures, key=lambda picture: picture.height):
        if not slices or picture.height > slices[-1][0].height + SAME_PLACE:
            slices.append([])
        slices[-1].append(picture)
    counts = [len(images) for images in slices]
    most = max(set(counts), key=counts.count)
    for number, count in enumerate(counts, 1):
        if count != most:
            raise InputError(
                f"{name}: slice {number} of {len(slices)} has {count} frames, and other slices have {most}: expected "
                "the same frames of every slice."
            )
    return slices


def _frames(slices: Sequence[Sequence[_Picture]], name: str) -> tuple[list[list[_Picture]], np.ndarray | None]:
    """Sort the images of each slice by time; return also their trigger times, (Z, T), if they are known."""
    for place in range(len(TIMES)):
        times = [[picture.times[place] for picture in images] for images in slices]
        if any(None in each or len(each) > len(set(each)) == 1 for each in times):
            continue  # not said, or not in earnest
        if any(len(set(each)) < len(each) for each in times):
            raise InputError(f"{name} holds several images of one slice at the same time: expected one cine.")
        ordered = [sorted(images, key=lambda picture: picture.times[place] or 0) for images in slices]
        return ordered, np.sort(np.array(times, float), 1) if place == 0 else None
    raise InputError(f"{name}: its files say neither a trigger time nor a number: expected those of a cine.")


def _step(origins: np.ndarray, name: str) -> np.ndarray:
    """The vector from one slice to the next."""
    steps = np.diff(origins, axis=0)
    mean, lengths = steps.mean(0), np.linalg.norm(steps, axis=1)
    if np.abs(steps - mean).max() > UNEVEN * np.linalg.norm(mean):
        raise InputError(
            f"{name}: its slices lie {lengths.min():.3g} to {lengths.max():.3g} mm apart: expected one even stack; a "
            "slice may be missing."
        )
    return np.asarray(mean)


def _frame_ms(times: np.ndarray, name: str) -> float:
    """The usual time between two frames."""
    steps = np.diff(times, axis=1)
    usual = float(np.median(steps))
    z, t = np.unravel_index(steps.argmax(), steps.shape)
    if steps[z, t] > LONGEST_STEP * usual:
        raise InputError(
            f"{name}: slice {z + 1} has no frame from {times[z, t]:g} to {times[z, t + 1]:g} ms, and the others are "
            f"{usual:g} ms apart: frames may be missing."
        )
    return usual
