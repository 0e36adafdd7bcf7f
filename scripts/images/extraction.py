"""The extraction of the brain from a head, before the network, which was trained on brains without their skull."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import optional_import

from ..support.command_line import flag
from ..support.errors import InputError
from ..support.keys import IMAGES
from ..support.notices import image_name, warn
from .brains import BRAIN_LITRES, CheckBrainsd, CorrectBiasd, skull_complaint
from .loading import Source, read_mask

__all__ = ["ExtractBrainsd", "brain_transforms", "extract_brain", "find_brain"]

deepbet, HAS_DEEPBET = optional_import("deepbet")

BRAIN_MASK = "brain_mask_{}"  # key of the mask of "fixed" or "moving"
INSTALL = "pip install -r requirements-brain.txt"


def brain_transforms(brain_extraction: object = "auto", bias_correction: object = False) -> list[Transform]:
    """List what happens to the images of a pair that the network for brains sees.

    Args:
        brain_extraction: ``auto``, true or false, see :class:`ExtractBrainsd`.
        bias_correction: true or false, or ``auto`` for a strong bias field alone, see :class:`CorrectBiasd`.

    Raises:
        InputError: when one of them is something else.
    """
    extraction, correction = _mode("brain_extraction", brain_extraction), _mode("bias_correction", bias_correction)
    advice = "" if HAS_DEEPBET or extraction is False else f"To extract the brains: {INSTALL}."
    return [
        ExtractBrainsd(IMAGES, extraction),
        *([CorrectBiasd(IMAGES, only_strong=correction == "auto")] if correction else []),
        CheckBrainsd(IMAGES, advice),
    ]


def _mode(name: str, value: object) -> str | bool:
    return "auto" if value == "auto" else flag(name, value)


class ExtractBrainsd(MapTransform):
    """Set everything outside of the brain to the minimum of the brain.

    The mask of an image is the user's own where the pair has ``brain_mask_fixed`` or ``brain_mask_moving``, or
    else that of :func:`find_brain`. It is left in the data, as 0 and 1, on the grid of the image.

    Args:
        keys: keys of the images as they were read, shape (1, X, Y, Z).
        mode: ``auto`` looks for the brain in images that do not look skull-stripped, see :func:`skull_complaint`, if
            deepbet is installed; True in all images; False in none.

    Raises:
        InputError: when deepbet is missing and the mode is True, or a mask is not usable.
    """

    def __init__(self, keys: KeysCollection, mode: str | bool = "auto") -> None:
        super().__init__(keys)
        if mode is True and not HAS_DEEPBET:
            raise InputError(f"the extraction of brains needs deepbet, which is not installed: {INSTALL}.")
        self.mode = mode

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(data):
            mask_key = BRAIN_MASK.format(key)
            result[key], mask = extract_brain(data[key], str(key), self.mode, data.get(mask_key))
            if mask is not None:
                result[mask_key] = mask
        return result


def extract_brain(
    image: MetaTensor, role: str, mode: str | bool = "auto", mask: Source | None = None
) -> tuple[MetaTensor, MetaTensor | None]:
    """Set everything outside of the brain of one image to the minimum of the brain, see :class:`ExtractBrainsd`.

    Args:
        image: shape (1, X, Y, Z), with its affine.
        role: the key of the image, for messages.
        mode: whether to look for the brain.
        mask: the user's own mask.

    Returns:
        the image, and the mask of its brain, or the image as it was, and None.
    """
    if mask is not None:
        mask = read_mask(mask, BRAIN_MASK.format(role), image, 3)
    elif mode is True or (mode == "auto" and HAS_DEEPBET and (complaint := skull_complaint(image))):
        mask, litres = find_brain(image)
        if mask is None:
            warn(
                f"{role}: {image_name(image)}: no brain was found in it: found {litres:.2g} litres, expected "
                f"{BRAIN_LITRES[0]} to {BRAIN_LITRES[1]}. It is registered as it is, and the result may be wrong."
            )
        elif mode == "auto":
            warn(
                f"{role}: {image_name(image)} does not look skull-stripped: {complaint}. Its brain was "
                f"extracted, {litres:.1f} litres."
            )
    if mask is None:
        return image, None
    inside, values = mask.as_tensor() > 0, image.as_tensor()
    return MetaTensor(torch.where(inside, values, values[inside].min()), meta=image.meta), mask


def find_brain(image: MetaTensor) -> tuple[MetaTensor | None, float]:
    """Find the brain in a T1-weighted head by deepbet (Fisch et al., Computers in Biology and Medicine 179, 2024).

    It runs on the CPU, so that the same image gives the same mask everywhere.

    Args:
        image: shape (1, X, Y, Z), with its affine.

    Returns:
        the mask, 1 in the brain and 0 elsewhere, on the grid of the image, or None if there is nothing of the size of a
        brain; and the volume of what was found, in litres.
    """
    nifti = nib.Nifti1Image(image.as_tensor()[0].float().cpu().numpy(), image.affine.double().numpy())
    try:
        _, found, _ = _extraction().run(nifti)
    except (AssertionError, ValueError):  # deepbet finds nothing at all
        return None, 0.0
    inside = np.asarray(found.dataobj) > 0
    litres = float(inside.sum() * np.prod(nifti.header.get_zooms()[:3]) / 1e6)
    if not BRAIN_LITRES[0] < litres < BRAIN_LITRES[1]:
        return None, litres
    meta = {"filename_or_obj": f"the brain of {image_name(image)}"}
    return MetaTensor(torch.from_numpy(inside.astype(np.float32))[None], affine=image.affine, meta=meta), litres


@cache
def _extraction() -> Any:
    return deepbet.BrainExtraction(no_gpu=True)
