"""Alignment of the moving image to the fixed image in world space, before the network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import ensure_tuple

from ..support.errors import InputError
from ..support.notices import image_name, warn
from .affine import find_affine, is_aligned
from .frame import grid_corners, sample_points, share_inside

__all__ = ["AlignWorldsd"]

MODES = ("world", "centers", "auto", "affine")
MIN_SEEN = 0.9  # of the foreground of the fixed image, in the moving image; less is doubtful, but usual for crops


class AlignWorldsd(Transform):
    """Align the moving image to the fixed image before the network. Only its affine changes.

    The transform adds ``alignment``, the 4x4 map from the fixed to the moving world (pull-back, like a ddf). The
    displacement on the native grid includes this map. Where the data has an ``alignment`` already, that is used.

    Args:
        mode: ``world`` trusts the scanner coordinates of both files (the identity); ``centers`` moves the centre of the
            moving image to the centre of the fixed image, for crops whose origin means nothing; ``affine`` registers
            them with :func:`find_affine`, unless one of them is constant; ``auto`` does so where :func:`is_aligned`
            finds that the coordinates do not align them.
        keys: the images to align: ``moving`` and, where it is used on the same grid, ``label_moving``.

    Raises:
        InputError: when the mode is unknown, the images do not overlap after alignment, or no plausible affine map is
            found.
    """

    def __init__(self, mode: str = "world", keys: KeysCollection = "moving") -> None:
        if mode not in MODES:
            raise InputError(f"unknown alignment '{mode}': expected {', '.join(MODES[:-1])} or {MODES[-1]}.")
        self.mode = mode
        self.keys = ensure_tuple(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        fixed, moving = data["fixed"], data["moving"]
        if "initial_transform" in data:  # which is no affine map, and is applied when the moving image is resampled
            return dict(data)
        alignment = data["alignment"] if "alignment" in data else self._find(fixed, moving)
        if share_inside(sample_points(fixed), moving, alignment) == 0:
            raise InputError(
                f"fixed: {image_name(fixed)} and moving: {image_name(moving)} do not overlap in world space: found "
                f"{_extent(fixed)} and {_extent(moving)}, expected a common part; --alignment centers or affine "
                "ignores the origins."
            )
        seen = share_inside(sample_points(fixed, foreground=True), moving, alignment)
        if seen < MIN_SEEN and self.mode != "centers":
            warn(
                f"{100 * (1 - seen):.0f} % of fixed: {image_name(fixed)} lie outside of moving: {image_name(moving)}: "
                "the displacement is only continued there."
            )
        aligned = {key: data[key].clone() for key in self.keys if key in data}
        for image in aligned.values():
            image.affine = torch.linalg.inv(alignment) @ image.affine.double()
        return {**data, **aligned, "alignment": alignment}

    def _find(self, fixed: MetaTensor, moving: MetaTensor) -> torch.Tensor:
        alignment = torch.eye(4, dtype=torch.float64)
        if self.mode == "centers":
            alignment[:3, 3] = _center(moving) - _center(fixed)
        elif self._moves(fixed, moving):
            alignment = find_affine(fixed, moving)
        return alignment

    def _moves(self, fixed: MetaTensor, moving: MetaTensor) -> bool:
        if self.mode == "world" or any(image.min() == image.max() for image in (fixed, moving)):
            return False
        return self.mode == "affine" or not is_aligned(fixed, moving)


def _center(image: MetaTensor) -> torch.Tensor:
    return (image.affine.double() @ grid_corners(image))[:3].mean(1)


def _extent(image: MetaTensor) -> str:
    world = (image.affine.double() @ grid_corners(image))[:3].numpy()
    return " x ".join(f"{low:.0f}..{high:.0f}" for low, high in zip(world.min(1), world.max(1))) + " mm (R, A, S)"
