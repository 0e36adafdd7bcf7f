"""What a network takes."""

from __future__ import annotations

import torch

from ..support.errors import InputError

__all__ = ["check_image"]


def check_image(image: torch.Tensor, spatial_dims: int, minimum_size: int = 1) -> None:
    """Raise an :class:`InputError` unless an image can go into a registration network.

    Args:
        image: expected to have shape (B, 2, *spatial), channel 0 moving and channel 1 fixed.
        spatial_dims: 2 or 3, as the network.
        minimum_size: voxels that the network needs along each axis.
    """
    if image.ndim != spatial_dims + 2 or image.shape[1] != 2 or min(image.shape[2:]) < minimum_size:
        least = f", with at least {minimum_size} voxels along each axis" if minimum_size > 1 else ""
        raise InputError(
            f"image must have shape (B, 2, {', '.join('HWD'[:spatial_dims])}), channel 0 moving and channel 1 fixed"
            f"{least}; got {tuple(image.shape)}."
        )
