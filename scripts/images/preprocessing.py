"""From the files of a pair to what the network takes: one description for training, evaluation and inference."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import (
    Compose,
    ConcatItemsd,
    CopyItemsd,
    Orientationd,
    ResampleToMatchd,
    ResizeWithPadOrCropd,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    Spacingd,
    Transform,
)

from ..support.errors import InputError
from ..support.keys import IMAGES, LABELS
from .alignment import AlignWorldsd
from .loading import LoadPaird

__all__ = ["PERCENTILES", "ScaleIntensitiesd", "preprocess_pair"]

PERCENTILES = (1, 99)  # of an image, which become 0 and 1 where no range of intensities is given


def preprocess_pair(
    spatial_dims: int,
    spacing: Sequence[float],
    spatial_size: Sequence[int],
    alignment: str = "world",
    intensity_range: Sequence[float] | None = None,
    native: Sequence[Transform] = (),
    labels_on_grid: bool = False,
) -> Compose:
    """The transforms from file names to ``image``: moving and fixed on one grid, clipped and scaled to [0, 1].

    Args:
        spatial_dims: of the network; a stack of a 2D network stays as it lies, a volume is turned to RAS.
        spacing: of the network's grid, in mm; -1 keeps the fixed image's.
        spatial_size: of the network's grid, in voxels; -1 keeps the fixed image's.
        alignment: see :class:`AlignWorldsd`.
        intensity_range: see :class:`ScaleIntensitiesd`.
        native: transforms of the images as read, before anything else: checks, bias correction, synthesis.
        labels_on_grid: bring the labels to the network's grid too, for training. Otherwise they stay as read, beside
            ``native_fixed`` and ``native_moving``, for results on the fixed image's own grid.
    """
    aligned = ["moving", "label_moving"] if labels_on_grid else ["moving"]
    transforms: list[Transform] = [
        LoadPaird(spatial_dims),
        *native,
        *([] if labels_on_grid else [CopyItemsd(IMAGES, names=[f"native_{key}" for key in IMAGES])]),
        AlignWorldsd(alignment, keys=aligned),
        # a stack stays as it lies: its slices must remain last
        *([Orientationd("fixed", axcodes="RAS", labels=None)] if spatial_dims == 3 else []),
        Spacingd("fixed", pixdim=spacing),
        ResizeWithPadOrCropd("fixed", spatial_size=spatial_size, mode="edge"),
        ResampleToMatchd("moving", key_dst="fixed", padding_mode="border"),
        ScaleIntensitiesd(intensity_range),
    ]
    if labels_on_grid:
        transforms.append(
            ResampleToMatchd(LABELS, key_dst="fixed", mode="nearest", padding_mode="zeros", allow_missing_keys=True)
        )
    return Compose([*transforms, ConcatItemsd(["moving", "fixed"], name="image")])


class ScaleIntensitiesd(Transform):
    """Clip ``fixed`` and ``moving`` to a range of intensities and scale it to [0, 1].

    The range is kept as ``intensity_range``, so that the measures of a result use the same one.

    Args:
        intensity_range: the intensities that become 0 and 1, such as a window of Hounsfield units; None stands for each
            image's own percentiles 1 and 99.

    Raises:
        InputError: when the range is not two increasing numbers.
    """

    def __init__(self, intensity_range: Sequence[float] | None = None) -> None:
        self.intensity_range = check_range(intensity_range)
        if self.intensity_range is None:
            self.scale: Transform = ScaleIntensityRangePercentiles(*PERCENTILES, b_min=0, b_max=1, clip=True)
        else:
            self.scale = ScaleIntensityRange(*self.intensity_range, b_min=0, b_max=1, clip=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = {**data, "intensity_range": self.intensity_range}
        for key in IMAGES:
            result[key] = self.scale(data[key])
        return result


def check_range(intensity_range: Sequence[float] | None) -> tuple[float, float] | None:
    """Return a range of intensities as two numbers, or None.

    Raises:
        InputError: when it is neither.
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
