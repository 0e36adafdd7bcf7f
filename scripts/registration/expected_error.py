"""The expected error of a displacement, from a second registration with the images exchanged."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor

from ..deformation.grid import as_volume, by_image
from ..networks.guidance import GuidanceLayout
from ..networks.kernels.filters import window_mean
from ..verdict import ErrorModel, error_features, find_tissue
from ..verdict.error_map import halved
from ..verdict.evidence import LARGEST

__all__ = ["expect_error"]


def expect_error(
    predict: Callable[[torch.Tensor, GuidanceLayout | None], torch.Tensor],
    model: ErrorModel,
    data: Mapping[Hashable, Any],
    ddf: torch.Tensor,
    spatial_dims: int,
) -> MetaTensor:
    """Compute the error that is to be expected of a ddf.

    Args:
        predict: registers an image, (C, X, Y, Z), with what guides it: see :meth:`Registration.predict`.
        model: what was learned of the errors of these registrations.
        data: the preprocessed pair.
        ddf: what ``predict`` gave for it, shape (3, X, Y, Z).
        spatial_dims: 2 or 3, as the network.

    Returns:
        the length of the error in mm, and 1 where there is tissue, shape (2, X, Y, Z), on the network's grid; of a
        large or fine one with half as many voxels along each axis.
    """
    affine = data["fixed"].affine.double()
    image, field = convert_to_tensor(data["image"], track_meta=False), ddf
    halve = data.get("fine", False)  # what was learned is for the network's grid
    while spatial_dims == 3 and (halve or field[0].numel() > LARGEST):
        image, field, affine = halved(image, field, affine)
        halve = False
    layout = data.get("layout")
    exchanged, back_layout = (layout or GuidanceLayout()).exchange(image)
    back = predict(exchanged, layout and back_layout)
    pairs, fields, backs = (by_image(part, spatial_dims) for part in (image[:2].cpu(), field, back))
    tissue = find_tissue(pairs)
    errors = torch.zeros_like(pairs[:, :1])
    if tissue.any():
        errors = model(error_features(pairs, fields, backs), tissue)
    voxel = float(affine[:3, :spatial_dims].norm(dim=0).log().mean().exp())  # mm
    shown = (window_mean(tissue.float(), 3) > 0.5).float()  # without single dark voxels
    return MetaTensor(as_volume(torch.cat([voxel * errors, shown], 1), spatial_dims), affine=affine)
