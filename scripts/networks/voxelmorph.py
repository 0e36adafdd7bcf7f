"""MONAI's VoxelMorph with the interface of :class:`GraDIRN`, as a baseline."""

from __future__ import annotations

import torch
from monai.networks.nets import VoxelMorph as MonaiVoxelMorph
from monai.utils import convert_to_tensor
from torch import nn

from ..support.errors import InputError
from .checks import check_image
from .kernels.sampling import pad_to_multiple

__all__ = ["VoxelMorph"]

DIVISOR = 8  # three poolings
INTEGRATION_STEPS = 7  # steps of scaling and squaring


class VoxelMorph(nn.Module):
    """VoxelMorph (Balakrishnan et al., IEEE TMI 2019) in MONAI's configuration of the paper.

    Args:
        spatial_dims: 2 or 3.
    """

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise InputError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        self.spatial_dims = spatial_dims
        self.net = MonaiVoxelMorph(spatial_dims=spatial_dims, integration_steps=INTEGRATION_STEPS)
        # the authors' code starts from almost no displacement, MONAI's does not
        weight, bias = list(self.net.backbone.parameters())[-2:]
        nn.init.normal_(weight, std=1e-5)
        nn.init.zeros_(bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Register a batch.

        Args:
            image: moving (channel 0) and fixed (channel 1), shape (B, 2, *spatial), of any size.

        Returns:
            the ddf in voxels, shape (B, spatial_dims, *spatial), float32.

        Raises:
            InputError: when the image does not have this shape.
        """
        check_image(image, self.spatial_dims)
        image = convert_to_tensor(image, track_meta=False)
        moving, fixed = pad_to_multiple(image, DIVISOR).split(1, dim=1)
        _, ddf = self.net(moving, fixed)
        return ddf[(..., *(slice(extent) for extent in image.shape[2:]))].float()
