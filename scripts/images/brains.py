"""Checks that an image is what the brain model expects, and the correction of the bias field.

The model was trained on skull-stripped brains without a strong bias field. It registers other images poorly.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import optional_import

from ..support.errors import InputError
from ..support.notices import image_name, warn
from .affine import one_itk_thread, to_itk
from .intensities import tissue_floor

__all__ = [
    "CheckBrainsd",
    "CorrectBiasd",
    "brightness_ratio",
    "check_brain",
    "correct_bias",
    "skull_complaint",
]

sitk, HAS_SIMPLEITK = optional_import("SimpleITK")

MIN_BACKGROUND = 0.25  # as a fraction of the volume; a brain fills about half of its bounding box
MAX_BORDER = 0.1  # largest fraction of the voxels on the border of the volume that are above the background
BRAIN_LITRES = (0.3, 2.6)  # from a newborn's brain to more than an adult's with all CSF; a head has 3 or more
MAX_BRIGHTNESS_RATIO = 1.4
FLAT, FAR = 5e-5, 0.05  # of the range of intensities: as good as the background, and surely no background
CORRECTED = "bias_corrected"  # entry in the metadata of an image
BLOCK_MM = 24.0  # large enough to contain some white matter, and small compared with a bias field


class CheckBrainsd(MapTransform):
    """Warn of images that do not look like those that the brain model was trained on. Changes nothing.

    A file is named in one line if it is not skull-stripped (:func:`skull_complaint`), or else if it has a strong bias
    field (:func:`brightness_ratio` above 1.4).

    Args:
        keys: keys of the images as they were read: shape (1, X, Y, Z), with the name of the file in
            ``meta["filename_or_obj"]``.
        advice: what to do where one is not skull-stripped.
    """

    def __init__(self, keys: KeysCollection, advice: str = "") -> None:
        super().__init__(keys)
        self.advice = advice

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            check_brain(data[key], f"{key}: {image_name(data[key])}", self.advice)
        return dict(data)


def check_brain(image: MetaTensor, name: str, advice: str = "") -> None:
    """Warn of one image, see :class:`CheckBrainsd`.

    Args:
        image: shape (1, X, Y, Z).
        name: how the message names the image.
        advice: what to do where it is not skull-stripped.
    """
    complaint = skull_complaint(image)
    if complaint:
        warn(
            f"{name} does not look skull-stripped: {complaint}. The model expects skull-stripped brains; "
            f"the result may be poor. {advice}".rstrip()
        )
        return
    ratio = brightness_ratio(image)
    if ratio > MAX_BRIGHTNESS_RATIO:
        corrected = image.meta.get(CORRECTED)
        advice = "this is what is left after its correction." if corrected else "--bias_correction true corrects it."
        warn(
            f"{name} has a strong bias field: white matter is {ratio:.1f} times as bright in some parts as in others, "
            f"expected at most {MAX_BRIGHTNESS_RATIO} times; {advice}"
        )


def skull_complaint(image: MetaTensor) -> str:
    """Say why an image does not look like a skull-stripped brain, or return "" if it does.

    The background must have one value, fill a good part of the volume, and make up nearly all of its border; the rest
    must have the volume of a brain.
    """
    array = _without_padding(image)
    level, foreground = background(array)
    share = 1 - foreground.mean()
    if level == array.min() and share < MIN_BACKGROUND:
        return (
            f"{100 * share:.0f} % of the volume have the minimum value, expected at least {100 * MIN_BACKGROUND:.0f} %"
        )
    border = np.mean([foreground.take(end, axis).mean() for axis in range(3) for end in (0, -1)])
    if border > MAX_BORDER:
        return f"{100 * border:.0f} % of its border are not background, expected at most {100 * MAX_BORDER:.0f} %"
    litres = foreground.sum() * float(np.prod(np.asarray(image.pixdim, dtype=float))) / 1e6
    if not BRAIN_LITRES[0] < litres < BRAIN_LITRES[1]:
        return f"{litres:.1f} litres are not background, expected {BRAIN_LITRES[0]} to {BRAIN_LITRES[1]}"
    return ""


def _without_padding(image: MetaTensor) -> np.ndarray:
    return image.as_tensor()[0].clamp(min=tissue_floor(image)).cpu().numpy()


def background(array: np.ndarray) -> tuple[float, np.ndarray]:
    """The value around a skull-stripped brain, and where the brain is.

    The value is the minimum, and all above it is brain. Only where the border of the volume and a good part of it have
    another value, as in z-scores or after the resampling by a spline, whose values swing below 0 at edges, it is that
    one, and all that is far from it is brain.

    Args:
        array: intensities, shape (X, Y, Z).

    Returns:
        the value, and a boolean array of the same shape.
    """
    lowest = float(array.min())
    level = float(np.median(np.concatenate([array.take(end, axis).ravel() for axis in range(3) for end in (0, -1)])))
    if level == lowest:
        return lowest, array > lowest
    distance = np.abs(array - level)
    reach = np.percentile(distance, 99.5)
    if (distance <= FLAT * reach).mean() < MIN_BACKGROUND:
        return lowest, array > lowest
    return level, distance > FAR * reach


def brightness_ratio(image: MetaTensor) -> float:
    """Return how much brighter the same tissue is in some parts of a brain than in others, due to a bias field.

    In blocks of 24 mm inside the brain, the 95th percentile represents the brightest tissue, which is white matter in a
    T1-weighted image. A second-order polynomial is fitted to its logarithm; the result is the ratio of the 95th to the
    5th percentile of the fit. It is 1.05 to 1.35 in the brains of IBSR, and 1 if there are too few blocks for a fit.
    """
    blocks, positions = _blocks(image)
    x, y, z = positions.T
    terms = np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    if len(blocks) < 2 * terms.shape[1]:
        return 1.0
    brightness = np.log(np.percentile(blocks, 95, axis=1))
    fit = terms @ np.linalg.lstsq(terms, brightness, rcond=None)[0]
    low, high = np.percentile(fit, (5, 95))
    return float(np.exp(high - low))


def _blocks(image: MetaTensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the blocks of which at least 80 % are brain: values above the background, (N, voxels), and positions.

    Positions have shape (N, 3) and lie between -1 and 1.
    """
    array = _without_padding(image)
    level, foreground = background(array)
    array = np.where(foreground, np.clip(array - level, 0, None), 0)
    size = [max(1, round(BLOCK_MM / float(s))) for s in image.pixdim]
    number = [n // m for n, m in zip(array.shape, size)]
    # leave out the voxels that do not fill a block, half on either side: the brain is in the middle
    first = [(n - k * m) // 2 for n, k, m in zip(array.shape, number, size)]
    array = array[tuple(slice(f, f + k * m) for f, k, m in zip(first, number, size))]
    (a, b, c), (i, j, k) = number, size
    blocks = array.reshape(a, i, b, j, c, k).transpose(0, 2, 4, 1, 3, 5).reshape(a * b * c, i * j * k)
    full = (blocks > 0).mean(1) >= 0.8
    positions = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in number], indexing="ij")).reshape(3, -1).T
    return blocks[full], positions[full]


class CorrectBiasd(MapTransform):
    """Remove the bias field of skull-stripped brains with SimpleITK's N4 (Tustison et al., 2010).

    The field is estimated on coarse voxels above the background, and divided out at full resolution. The background,
    the affine and all other metadata do not change.

    Args:
        keys: keys of the images, shape (1, X, Y, Z).
        spacing: size of the voxels on which the field is estimated, in mm.
        only_strong: leave images without a strong bias field as they are, see :func:`brightness_ratio`.

    Raises:
        InputError: when SimpleITK is missing.
    """

    def __init__(self, keys: KeysCollection, spacing: float = 8.0, only_strong: bool = False) -> None:
        super().__init__(keys)
        self.spacing = spacing
        self.only_strong = only_strong

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(data):
            if not self.only_strong or brightness_ratio(data[key]) > MAX_BRIGHTNESS_RATIO:
                result[key] = correct_bias(data[key], self.spacing)
        return result


def correct_bias(image: MetaTensor, spacing: float = 8.0) -> MetaTensor:
    """Remove the bias field of one image, see :class:`CorrectBiasd`."""
    if not HAS_SIMPLEITK:
        raise InputError("the bias correction needs SimpleITK, which is not installed: pip install SimpleITK.")
    values = image.as_tensor()
    level, foreground = background(_without_padding(image))
    if not foreground.any():
        return image
    inside = torch.from_numpy(foreground)[None] & (values > level)
    whole = to_itk(MetaTensor(torch.where(inside, values - level, 0), affine=image.affine))
    shrink = [max(1, min(round(spacing / s), n // 4)) for s, n in zip(whole.GetSpacing(), whole.GetSize())]
    method = sitk.N4BiasFieldCorrectionImageFilter()
    method.SetMaximumNumberOfIterations([50, 50, 50])  # at each of three spline resolutions
    with one_itk_thread():
        method.Execute(sitk.Shrink(whole, shrink), sitk.Shrink(whole > 0, shrink))
        field = sitk.GetArrayFromImage(method.GetLogBiasFieldAsImage(whole))
    corrected = torch.where(inside, level + (values - level) / torch.from_numpy(np.exp(field.T)[None]), values)
    meta = {**image.meta, CORRECTED: True}
    return MetaTensor(corrected.float(), meta=meta, applied_operations=image.applied_operations)
