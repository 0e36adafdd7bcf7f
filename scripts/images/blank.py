"""Slices in which there is nothing to see: not acquired, or cut away."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import convert_to_tensor

from ..support.keys import IMAGES
from ..support.notices import image_name, warn
from .intensities import DUST

__all__ = ["BLANK", "ClearBlankSlicesd", "FindBlankSlicesd", "blank_slices", "fill_slices"]

BLANK = tuple(f"blank_{key}" for key in IMAGES)
MOST_NAMED = 10  # slices in a warning
MOST_FILLED = 3  # slices side by side
MIXED = 0.05  # share of a blank slice that an interpolation may give to another one


class FindBlankSlicesd(Transform):
    """Warn of slices of one intensity in ``fixed`` and ``moving``, and keep them from being registered.

    In a stack, which is registered slice by slice, a mask of them, 1 in a blank slice and 0 elsewhere, is added as
    ``blank_fixed`` or ``blank_moving``. In a volume, those count that lie between others, along any axis; up to
    ``MOST_FILLED`` side by side are interpolated between their neighbours, so that they move like these.

    Args:
        spatial_dims: 2 or 3, as the network: 2 registers stacks, 3 volumes.
    """

    def __init__(self, spatial_dims: int) -> None:
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key, blank in zip(IMAGES, BLANK):
            image = data[key]
            axes = (2,) if self.spatial_dims == 2 else (0, 1, 2)
            found = {axis: blank_slices(image, axis, outer=self.spatial_dims == 2) for axis in axes}
            if not any(found.values()):
                continue
            effect = "which do not move" if self.spatial_dims == 2 else "where the motion is that of their neighbours"
            warn(f"{key}: {image_name(image)} is blank in some slices, {effect}: {_listed(found)}.")
            if self.spatial_dims == 2:
                result[blank] = torch.zeros_like(image)
                result[blank][..., found[2]] = 1
            else:
                for axis, slices in found.items():
                    result[key] = fill_slices(result[key], axis, slices)
        return result


class ClearBlankSlicesd(Transform):
    """Set the slices of ``fixed`` and ``moving`` to 0 to which ``blank_fixed`` or ``blank_moving`` contribute.

    Where the slices of an image lie between those of the network's grid, a blank one has dimmed its neighbours.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key, blank in zip(IMAGES, BLANK):
            if blank in data:
                mask = convert_to_tensor(result.pop(blank), track_meta=False)
                result[key] = data[key].clone()
                result[key][..., mask[0].mean((0, 1)) > MIXED] = 0
        return result


def blank_slices(image: torch.Tensor, axis: int, outer: bool) -> list[int]:
    """Return the places of the slices of one intensity; none if the whole image has only one.

    Args:
        image: shape (1, X, Y, Z).
        axis: 0, 1 or 2, across the slices.
        outer: whether those count, too, that lie before the first or after the last slice of several intensities.
    """
    slices = convert_to_tensor(image, track_meta=False)[0].movedim(axis, 0).flatten(1)
    low, high = slices.amin(1), slices.amax(1)
    blank = high - low <= DUST * torch.maximum(low.abs(), high.abs())
    seen = (~blank).nonzero().flatten().tolist()
    if not seen:
        return []
    places = range(len(blank)) if outer else range(seen[0], seen[-1] + 1)
    return [place for place in places if blank[place]]


def fill_slices(image: torch.Tensor, axis: int, slices: Sequence[int]) -> torch.Tensor:
    """Interpolate blank slices linearly between the two that enclose them.

    Args:
        image: shape (1, X, Y, Z).
        axis: 0, 1 or 2, across the slices.
        slices: places of the blank slices between others; those stay of which more than ``MOST_FILLED`` lie side by
            side.
    """
    result = image.clone()
    values, blank = result.movedim(axis + 1, 0), set(slices)
    for place in slices:
        before, after = place - 1, place + 1
        while before in blank:
            before -= 1
        while after in blank:
            after += 1
        if after - before - 1 <= MOST_FILLED:
            values[place] = torch.lerp(values[before], values[after], (place - before) / (after - before))
    return result


def _listed(found: Mapping[int, list[int]]) -> str:
    places = [f"{'ijk'[axis]} = {place}" for axis, slices in found.items() for place in slices]
    more = f" and {len(places) - MOST_NAMED} more" if len(places) > MOST_NAMED else ""
    return ", ".join(places[:MOST_NAMED]) + more
