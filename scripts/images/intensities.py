"""The intensities of an image that the network sees: the range that becomes 0 to 1, and the padding far below it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRange, Transform
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_tensor
from scipy.ndimage import maximum_filter

from ..support.errors import InputError
from ..support.keys import IMAGES
from ..support.notices import image_name, warn

__all__ = [
    "CONTRAST",
    "DUST",
    "PERCENTILES",
    "ClampPaddingd",
    "ScaleIntensitiesd",
    "clamp_padding",
    "find_range",
    "tissue_floor",
]

PERCENTILES = (1, 99)  # become 0 and 1 if there is no range of intensities
CONTRAST = 1e-3  # range within [0, 1] in which there is nothing to register, less than a step of 8 bits
DUST = 3e-7  # as a fraction of an intensity: what an interpolation adds to it
PADDED = 0.01  # smallest fraction of the voxels that a padding fills; less does not reach the percentiles
FLAT = 1e-3  # as a fraction of all intensities: what a spline leaves of the edge of a padding some voxels away
BOTTOM = 0.25  # part of the range of intensities where padding lies
FAR_BELOW = 0.5  # distance of padding from the tissue, as a fraction of the range of the tissue
BLURRED = 5  # voxels: width of the window in which a resampling mixes padding and tissue


def find_range(values: np.ndarray | torch.Tensor) -> tuple[Any, Any] | None:
    """Return the intensities of an image that become 0 and 1, or None if it has only one intensity.

    These are the percentiles 1 and 99. Where both are the same, as in an image of a small object or in a saturated one,
    the range goes from this intensity to the percentiles of all others.

    Args:
        values: an image of any shape.
    """
    low, high = percentile(values, PERCENTILES)  # type: ignore[misc]
    dust = DUST * max(abs(low), abs(high))
    if high - low > dust:
        return low, high
    others = values[abs(values - low) > dust]
    if not len(others):
        return None
    first, last = percentile(others, PERCENTILES)  # type: ignore[misc]
    return min(low, first), max(high, last)


def tissue_floor(image: torch.Tensor) -> float:
    """Return the intensity below which an image has nothing but padding; minus infinity if it is not padded.

    Padding is what scanners and resampling programs write where nothing was measured, such as -2000: one negative value
    at the bottom of at least 1 % of the voxels. The voxels that do not lie beside these are far above, by more than
    half of the range of their intensities. The background of an ordinary image is 0, or not so far below.

    The result is 0, or the 1st percentile of the tissue where that is negative, as in a CT.

    Args:
        image: shape (X, Y, Z) or (1, X, Y, Z).
    """
    values = convert_to_tensor(image, track_meta=False).cpu().numpy()
    lowest = values.min()
    if lowest >= 0:
        return -np.inf
    highest = np.percentile(values, PERCENTILES[1])
    bottom = values[values < lowest + (highest - lowest) * BOTTOM]
    if len(bottom) < PADDED * values.size:
        return -np.inf
    padding, reach = np.median(bottom), FLAT * (highest - lowest)
    if (abs(bottom - padding) <= reach).mean() < 0.5:
        return -np.inf
    padded = values <= padding + reach
    near = maximum_filter(padded, BLURRED)
    tissue = values[~(padded if near.all() else near)]
    darkest = float(np.percentile(tissue, PERCENTILES[0]))
    is_far = darkest - padding > FAR_BELOW * (highest - darkest) > 0
    return min(0.0, darkest) if is_far else -np.inf


class ClampPaddingd(Transform):
    """Raise padding far below the tissue of ``fixed`` and ``moving``, see :func:`clamp_padding`.

    It would decide the percentiles, and all tissue would look the same. Other images stay as they are.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: clamp_padding(data[key], key) for key in IMAGES}}


def clamp_padding(image: MetaTensor, role: str) -> MetaTensor:
    """Raise padding far below the tissue of an image, shape (1, X, Y, Z), see :func:`tissue_floor`, with a warning.

    Args:
        image: the image, with the name of its file in ``meta["filename_or_obj"]``.
        role: what the image is (``fixed``, ...), for the warning.
    """
    floor = tissue_floor(image)
    if floor == -np.inf:
        return image
    warn(f"{_name(role, image)} is padded with {float(image.min()):g}, far below its tissue: taken as background.")
    return cast(MetaTensor, image.clamp(min=floor))


class ScaleIntensitiesd(Transform):
    """Clip ``fixed`` and ``moving`` to a range of intensities and scale it to [0, 1].

    The range is added as ``intensity_range``, so that the measures of a result use the same one. An image of one
    intensity becomes 0, with a warning.

    Args:
        intensity_range: the intensities that become 0 and 1, such as a window of Hounsfield units; None means those of
            :func:`find_range` of each image.

    Raises:
        InputError: when the range is not two increasing numbers, or both images are constant.
    """

    def __init__(self, intensity_range: Sequence[float] | None = None) -> None:
        self.intensity_range = check_range(intensity_range)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        scaled: dict[Hashable, Any] = {key: self.scale(data[key]) for key in IMAGES}
        constant = [_name(key, data[key]) for key in IMAGES if scaled[key].max() - scaled[key].min() <= CONTRAST]
        if len(constant) == len(IMAGES):
            raise InputError(f"{' and '.join(constant)}: each is constant {self._where()}: expected images.")
        for name in constant:
            warn(f"{name} is constant {self._where()}: nothing moves.")
        return {**data, **scaled, "intensity_range": self.intensity_range}

    def scale(self, image: MetaTensor) -> MetaTensor:
        """Clip and scale one image, shape (1, *spatial)."""
        limits = self.intensity_range or find_range(convert_to_tensor(image, track_meta=False))
        if limits is None:
            return cast(MetaTensor, torch.zeros_like(image))
        low, high = limits
        return cast(MetaTensor, ScaleIntensityRange(low, high, b_min=0, b_max=1, clip=True)(image))

    def _where(self) -> str:
        window = f" in the intensity_range {list(self.intensity_range)}" if self.intensity_range else ""
        return f"where it is registered{window}"


def check_range(intensity_range: Sequence[float] | None) -> tuple[float, float] | None:
    """Return a range of intensities as two numbers, or None.

    Raises:
        InputError: when it is neither of them.
    """
    if intensity_range is None:
        return None
    try:
        low, high = (float(value) for value in intensity_range)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not low < high:
        raise InputError(f"intensity_range is {intensity_range}: expected two increasing numbers such as [-1000,400].")
    return low, high


def _name(key: str, image: MetaTensor) -> str:
    return f"{key}: {image_name(image)}"
