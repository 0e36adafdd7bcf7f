"""From the files of a pair to what the network takes: one description for training, evaluation and inference."""

from __future__ import annotations

from collections.abc import Sequence

from monai.transforms import (
    Compose,
    ConcatItemsd,
    CopyItemsd,
    Orientationd,
    ResampleToMatchd,
    ResizeWithPadOrCropd,
    ScaleIntensityRangePercentilesd,
    Spacingd,
    Transform,
)

from .alignment import AlignWorldsd
from .loading import LoadPaird

__all__ = ["preprocess_pair"]

IMAGES = ["fixed", "moving"]
LABELS = ["label_fixed", "label_moving"]


def preprocess_pair(
    spatial_dims: int,
    spacing: Sequence[float],
    spatial_size: Sequence[int],
    alignment: str = "world",
    native: Sequence[Transform] = (),
    labels_on_grid: bool = False,
) -> Compose:
    """The transforms from file names to ``image``: moving and fixed on one grid, clipped to percentiles, in [0, 1].

    Args:
        spatial_dims: of the network; a stack of a 2D network stays as it lies, a volume is turned to RAS.
        spacing: of the network's grid, in mm; -1 keeps the fixed image's.
        spatial_size: of the network's grid, in voxels; -1 keeps the fixed image's.
        alignment: see :class:`AlignWorldsd`.
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
        ScaleIntensityRangePercentilesd(IMAGES, lower=1, upper=99, b_min=0, b_max=1, clip=True),
    ]
    if labels_on_grid:
        transforms.append(
            ResampleToMatchd(LABELS, key_dst="fixed", mode="nearest", padding_mode="zeros", allow_missing_keys=True)
        )
    return Compose([*transforms, ConcatItemsd(["moving", "fixed"], name="image")])
