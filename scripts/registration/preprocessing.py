"""The preprocessing of a pair, from files to the input of the network, for training, evaluation and inference."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import (
    Compose,
    CopyItemsd,
    Orientationd,
    ResampleToMatchd,
    Transform,
)

from ..images.alignment import AlignWorldsd
from ..images.blank import BLANK, ClearBlankSlicesd, FindBlankSlicesd
from ..images.field_of_view import ResampleMovingd, ResampleToGridd
from ..images.intensities import ClampPaddingd, ScaleIntensitiesd
from ..images.loading import LoadPaird
from ..support.errors import InputError
from ..support.keys import IMAGES, LABELS
from ..support.notices import collect_warnings
from .guidance import ConcatPaird, FillMaskHolesd, GuideNetworkd, LoadGuidanced, ResampleThroughd

__all__ = ["preprocess_pair"]

LARGEST_ID = 2**24  # the whole numbers up to this one are exact in single precision


def preprocess_pair(
    spatial_dims: int,
    spacing: Sequence[float],
    spatial_size: Sequence[int],
    alignment: str = "world",
    intensity_range: Sequence[float] | None = None,
    native: Sequence[Transform] = (),
    network: Sequence[Transform] = (),
    labels_on_grid: bool = False,
    memory_limit: float | None = None,
    use_labels: bool = False,
    channel_weights: Sequence[float] | None = None,
    fine: bool = False,
) -> Compose:
    """Return the transforms from file names to ``image``: moving and fixed on one grid, clipped and scaled to [0, 1].

    Args:
        spatial_dims: 2 or 3, as the network. A stack for a 2D network keeps its orientation, a volume is turned to RAS.
        spacing: voxel size of the network's grid, in mm; -1 keeps that of the fixed image.
        spatial_size: size of the network's grid, in voxels; -1 keeps that of the fixed image.
        alignment: see :class:`AlignWorldsd`.
        intensity_range: see :class:`ScaleIntensitiesd`.
        native: transforms of the images as they were read, before everything else: synthesis.
        network: transforms of the images that the network sees, on their own grids, not of those that are warped and
            measured: brain extraction, bias correction, checks.
        labels_on_grid: resample the labels to the network's grid, too, for training. Otherwise labels, ``native_fixed``
            and ``native_moving`` keep the images and labels as they were read, for results on the fixed image's grid.
        memory_limit: see :class:`LoadPaird`.
        use_labels: let both label maps drive the registration.
        channel_weights: see :class:`GuideNetworkd`.
        fine: see :class:`ResampleToGridd`; not where label maps drive the registration.

    Raises:
        InputError: when an argument is out of its range.
    """
    if isinstance(spacing, str):
        raise InputError(f"--spacing is '{spacing}': expected mm along each axis; auto is for brain.yaml.")
    aligned = ["moving", "label_moving"] if labels_on_grid else ["moving"]
    transforms: list[Transform] = [
        LoadPaird(spatial_dims, memory_limit),
        LoadGuidanced(spatial_dims, use_labels),
        *native,
        *([] if labels_on_grid else [CopyItemsd(IMAGES, names=[f"native_{key}" for key in IMAGES])]),
        *network,
        FillMaskHolesd(),
        *([ClampPaddingd()] if intensity_range is None else []),  # a range clips it anyway
        FindBlankSlicesd(spatial_dims),
        AlignWorldsd(alignment, keys=[*aligned, "blank_moving"]),
        # a stack keeps its orientation: its slices must remain last
        *([Orientationd("fixed", axcodes="RAS", labels=None)] if spatial_dims == 3 else []),
        ResampleToGridd(spatial_dims, spacing, spatial_size, fine and not use_labels),
        ResampleThroughd(),
        ResampleMovingd(),
        ResampleToMatchd(BLANK, key_dst="fixed", padding_mode="border", allow_missing_keys=True),
        ScaleIntensitiesd(intensity_range),
        ClearBlankSlicesd(),
        GuideNetworkd(spatial_dims, use_labels, channel_weights),
    ]
    if labels_on_grid:
        transforms += [
            CheckLabelIdsd(),
            ResampleToMatchd(LABELS, key_dst="fixed", mode="nearest", padding_mode="zeros", allow_missing_keys=True),
        ]
    return WithWarnings([*transforms, ConcatPaird()])


class WithWarnings(Compose):
    """Transforms of a pair, to which the texts of their warnings are added as ``warnings``."""

    def __call__(self, input_: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        texts: list[str] = []
        with collect_warnings(texts):
            result = super().__call__(input_, *args, **kwargs)
        return {**result, "warnings": texts}


class CheckLabelIdsd(Transform):
    """Refuse label ids that single precision, in which MONAI resamples labels, cannot tell from their neighbours."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in LABELS:
            if key in data and int(data[key].abs().max()) > LARGEST_ID:
                raise InputError(
                    f"{key}: {data[key].meta['filename_or_obj']} has the label {int(data[key].max())}: a training "
                    f"takes ids up to {LARGEST_ID}."
                )
        return dict(data)
