"""Tracing of a network for any image size and device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

__all__ = ["Traced", "new_tensor"]


def new_tensor(make: Callable[..., torch.Tensor], size: int | Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Return ``make(size)``, such as ``torch.arange(5)``, with the dtype and the device of another tensor."""
    if torch.jit.is_tracing():  # a trace would store the name of the device
        return make(size).type_as(like)
    return make(size, dtype=like.dtype, device=like.device)


class Traced(nn.Module):
    """The trace of a registration network, after a check of the image; ``torch.jit.script`` accepts it.

    Args:
        network: maps images (B, 2, *spatial) to ddfs (B, d, *spatial), for any batch and size.
        spatial_dims: d.
        minimum_size: smallest number of voxels of an image along each axis.
    """

    def __init__(self, network: nn.Module, spatial_dims: int, minimum_size: int) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.minimum_size = minimum_size
        parameter = next(network.parameters())
        # odd sizes, all different, so that no equality of sizes becomes part of the trace
        size = [4 * minimum_size + 1 + 2 * axis for axis in range(spatial_dims)]
        image = torch.rand(3, 2, *size, dtype=parameter.dtype, device=parameter.device)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            self.trace = torch.jit.trace(network, image, check_trace=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        size = image.shape[2:]
        if image.dim() != self.spatial_dims + 2 or image.shape[1] != 2 or min(size) < self.minimum_size:
            raise ValueError(
                f"image must have shape (B, 2, *spatial) with {self.spatial_dims} spatial axes of at least "
                f"{self.minimum_size} voxels; got {image.shape}."
            )
        return self.trace(image)
