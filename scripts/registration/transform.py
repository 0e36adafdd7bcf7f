"""Registration as a MONAI transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor, ensure_tuple_rep

from ..support.errors import InputError
from .pair import Registration

__all__ = ["RegisterImaged"]

MODES = ("bilinear", "nearest")
GUIDANCE = ("mask_fixed", "mask_moving", "landmarks", "initial_transform")


class RegisterImaged(MapTransform):
    """Register a moving image to a fixed image, and resample further images of the moving subject to the fixed grid.

    The items of ``keys`` are replaced: they get the grid of the fixed image, with its affine and all of its other
    metadata, except for the file name, which they keep. The fixed image does not change.

    Args:
        keys: the items to resample, usually the moving image and its label maps: MetaTensors of shape (C, X, Y, Z) or
            (C, X, Y), each on any grid in the world of the moving image.
        registration: a :class:`Registration`, or the name of a task, whose weights are then loaded; None registers
            without weights, by :meth:`Registration.classical`.
        fixed_key: key of the fixed image, shape (1, X, Y, Z) or (1, X, Y).
        moving_key: key of the image that is registered to it.
        ddf_key: key for the displacement in voxels of the fixed grid, shape (3, X, Y, Z) or (2, X, Y); None adds none.
        mode: ``bilinear`` for images, ``nearest`` for label maps: one for all keys, or one for each.
        allow_missing_keys: do not raise an error if one of ``keys`` is missing.
        guidance_keys: keys of what else is known of the pair, by the names that :class:`Registration` has for it:
            ``mask_fixed``, ``mask_moving``, ``landmarks``, ``initial_transform``. What is missing is left out.

    Raises:
        InputError: when a mode or a name is unknown, or the images cannot be registered.

    Example::

        >>> Compose([
        ...     LoadImaged(["fixed", "moving", "label"], ensure_channel_first=True),
        ...     RegisterImaged(["moving", "label"], "brain", mode=["bilinear", "nearest"]),
        ...     SaveImaged(["moving", "label"], output_postfix="registered"),
        ... ])
    """

    def __init__(
        self,
        keys: KeysCollection,
        registration: Registration | str | None = None,
        fixed_key: Hashable = "fixed",
        moving_key: Hashable = "moving",
        ddf_key: Hashable | None = "ddf",
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
        guidance_keys: Mapping[str, Hashable] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.registration = Registration.load(registration) if isinstance(registration, str) else registration
        self.fixed_key = fixed_key
        self.moving_key = moving_key
        self.ddf_key = ddf_key
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        for name in self.mode:
            if name not in MODES:
                raise InputError(f"unknown mode '{name}': expected {' or '.join(MODES)}.")

        self.guidance_keys = dict(guidance_keys or {})
        for name in self.guidance_keys:
            if name not in GUIDANCE:
                raise InputError(f"unknown name '{name}' in guidance_keys: expected one of {', '.join(GUIDANCE)}.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Register the pair in ``data``.

        Returns:
            ``data``, with the items of ``keys`` on the fixed grid and with ``ddf_key``: float32, on the fixed image's
            device.
        """
        result, fixed = dict(data), data[self.fixed_key]
        if not isinstance(fixed, MetaTensor):
            raise InputError(f"{self.fixed_key} is a {type(fixed).__name__}: expected a MetaTensor, as of LoadImaged.")
        register = self.registration or Registration.classical(2 if fixed.ndim == 3 else 3)
        guidance = {name: data[key] for name, key in self.guidance_keys.items() if key in data}
        pair = register(fixed, data[self.moving_key], **guidance)
        for key, mode in self.key_iterator(data, self.mode):
            result[key] = _like(fixed, pair.carry(data[key], mode), data[key])
        if self.ddf_key is not None:
            ddf = convert_to_tensor(pair.ddf, track_meta=False)
            result[self.ddf_key] = _like(fixed, ddf if fixed.ndim == 4 else ddf[:2], data[self.moving_key])
        return result


def _like(fixed: MetaTensor, values: torch.Tensor, source: MetaTensor) -> MetaTensor:
    """Values of the fixed grid with all that the fixed image carries, but the file name of their source."""
    meta = deepcopy(fixed.meta)
    meta["filename_or_obj"] = source.meta.get("filename_or_obj", "")
    plain = convert_to_tensor(values, track_meta=False).to(fixed.device)
    plain = plain if fixed.ndim == 4 else plain[..., 0]
    return MetaTensor(plain, meta=meta, applied_operations=deepcopy(fixed.applied_operations))
