"""The random transforms that make training samples of preprocessed pairs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import (
    Compose,
    ConcatItemsd,
    EnsureTyped,
    RandAdjustContrastd,
    RandAffined,
    RandAxisFlipd,
    RandBiasFieldd,
    RandGaussianSmoothd,
    RandomizableTransform,
    RandSmoothDeformd,
    RandSpatialCropd,
    SelectItemsd,
    SplitDimd,
    SqueezeDimd,
    Transform,
)

from ..support.errors import InputError

__all__ = ["RandPartnerd", "RandSwapd", "augment_pair", "sample_transforms"]

LABELS = ("label_fixed", "label_moving")


def sample_transforms(partners: Sequence[Mapping[str, str]], preprocessing: Compose, augmentation: Compose) -> Compose:
    """Return all transforms from the files of an item to a training sample, in one list.

    Args:
        partners: the moving halves that :class:`RandPartnerd` chooses from; empty if the items are already pairs.
        preprocessing: result of :func:`~scripts.registration.preprocess_pair`.
        augmentation: result of :func:`augment_pair`.
    """
    pairing = [RandPartnerd(partners)] if partners else []
    return Compose([*pairing, *preprocessing.transforms, *augmentation.transforms])


def augment_pair(
    size: Sequence[int],
    labelled: bool = False,
    augmentation: bool = True,
    zoom: float = 0.15,
    gamma: tuple[float, float] = (0.7, 1.5),
    elastic: float = 0.0,
    motion: float = 0.0,
    scanner_prob: float = 0.0,
    swap_prob: float = 0.5,
) -> Compose:
    """Return the random transforms from a preprocessed pair to a sample: ``image`` and, if there are any, its labels.

    Args:
        size: size of a sample in voxels: two numbers for a random slice of a stack, three for a volume; -1 keeps the
            size of an axis.
        labelled: the pair has ``label_fixed`` and ``label_moving``.
        augmentation: False only keeps the choice of the slice or crop, and the exchange of the images.
        zoom: largest relative change of size.
        gamma: range of the exponent that changes the contrast.
        elastic: largest displacement of a random smooth deformation of both images, as a fraction of half the sample.
        motion: the same for the moving image alone.
        scanner_prob: probability of a bias field, and of a blur; both images get the same.
        swap_prob: probability that the fixed and the moving image are exchanged.
    """
    dims, keys = len(size), ["image", *LABELS] if labelled else ["image"]
    transforms: list[Transform] = [
        SelectItemsd(keys),
        RandSpatialCropd(keys, roi_size=[*size, 1][:3], random_size=False),
        *([SqueezeDimd(keys, dim=-1)] if dims == 2 else []),
        RandSwapd(swap_prob),
    ]
    if augmentation:
        transforms += [RandAxisFlipd(keys, prob=0.5), _affine(keys, dims, zoom)]
        transforms += [_smooth_deformation(keys, size, elastic, prob=0.8)] if elastic else []
        transforms += _motion(size, motion, labelled) if motion else []
        transforms += [RandAdjustContrastd("image", prob=0.8, gamma=gamma), *_scanner(scanner_prob)]
    return Compose([*transforms, EnsureTyped(keys, track_meta=False)])


def _affine(keys: Sequence[str], dims: int, zoom: float) -> Transform:
    """Rotate, by any angle in 2D and by a few degrees in 3D, and change the size along each axis."""
    rotation = (3.14,) if dims == 2 else (0.2, 0.2, 0.2)
    scale = (zoom,) * dims
    return RandAffined(
        keys, prob=0.8, rotate_range=rotation, scale_range=scale, mode=_modes(keys), padding_mode="border"
    )


def _smooth_deformation(keys: Sequence[str], size: Sequence[int], largest: float, prob: float) -> Transform:
    """Deform all keys by the same random displacement, with a control point every 16 voxels."""
    return RandSmoothDeformd(
        keys,
        prob=prob,
        spatial_size=size,
        rand_size=[max(2, n // 16) for n in size],
        field_mode="bicubic" if len(size) == 2 else "trilinear",
        def_range=largest,
        grid_mode=_modes(keys),
    )


def _motion(size: Sequence[int], largest: float, labelled: bool) -> list[Transform]:
    """Deform only the moving image and its label."""
    keys = ["image_moving", "label_moving"] if labelled else ["image_moving"]
    return [
        SplitDimd("image", dim=0, output_postfixes=["moving", "fixed"]),
        _smooth_deformation(keys, size, largest, prob=0.5),
        ConcatItemsd(["image_moving", "image_fixed"], name="image"),
    ]


def _scanner(prob: float) -> list[Transform]:
    sigma = (0.25, 0.8)
    return [
        RandBiasFieldd("image", prob=prob, coeff_range=(-0.15, 0.15)),
        RandGaussianSmoothd("image", prob=prob, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
    ]


def _modes(keys: Sequence[str]) -> list[str]:
    return ["nearest" if key in LABELS else "bilinear" for key in keys]


class RandPartnerd(RandomizableTransform):
    """Add the moving half of another, random subject to an item with ``name``, ``fixed``, ``label_fixed``.

    Args:
        partners: dictionaries with ``name``, ``moving`` and ``label_moving``, as
            :func:`~scripts.cohorts.training_partners` lists them.

    Raises:
        InputError: when there is no other subject.
    """

    def __init__(self, partners: Sequence[Mapping[str, str]]) -> None:
        super().__init__()
        self.partners = list(partners)
        self._place = {partner["name"]: place for place, partner in enumerate(self.partners)}
        self._drawn = 0

    def randomize(self, data: Mapping[Hashable, Any]) -> None:
        super().randomize(None)
        own = self._place.get(data["name"])
        others = len(self.partners) - (own is not None)
        if others < 1:
            raise InputError(f"{data['name']} has no partner: expected two subjects to make a pair.")
        self._drawn = int(self.R.randint(others))
        if own is not None and self._drawn >= own:
            self._drawn += 1

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize(data)
        partner = self.partners[self._drawn]
        return {**data, **{key: value for key, value in partner.items() if key != "name"}}


class RandSwapd(RandomizableTransform):
    """Exchange the fixed and the moving image at random: the channels of ``image``, and the labels.

    Args:
        prob: probability of an exchange.
    """

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__(prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        if self._do_transform:
            result["image"] = data["image"].flip(0)
            if "label_fixed" in data:
                result |= {"label_fixed": data["label_moving"], "label_moving": data["label_fixed"]}
        return result
