"""Learned features of an image, which drive the explicit step beside its intensities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from monai.networks.nets import UNet
from torch import nn

from .kernels.sampling import pad_to_multiple

__all__ = ["Features"]

INITIAL_LOGIT = -3.0  # a structure is small: training starts faster from features that are nearly 0 everywhere


class Features(nn.Module):
    """A small U-Net from one image to features in [0, 1], the same for fixed and moving.

    Args:
        spatial_dims: 2 or 3.
        num_features: channels of the result.
        channels: of each level of the U-Net, fine to coarse.
        num_res_units: residual units of each level.

    Attributes:
        factor: of the size between the image and its coarsest level.

    Input (B, 1, *spatial), output (B, num_features, *spatial).
    """

    def __init__(self, spatial_dims: int, num_features: int, channels: Sequence[int], num_res_units: int = 0) -> None:
        super().__init__()
        strides = [2] * (len(channels) - 1)
        self.unet = UNet(spatial_dims, 1, num_features, channels, strides, num_res_units=num_res_units)
        self.factor = 2 ** (len(channels) - 1)
        upsampling = [m for m in self.unet.modules() if isinstance(m, (nn.ConvTranspose2d, nn.ConvTranspose3d))]
        nn.init.constant_(cast("torch.Tensor", upsampling[-1].bias), INITIAL_LOGIT)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.unet(pad_to_multiple(image, self.factor)).sigmoid()
        return features[(..., *(slice(extent) for extent in image.shape[2:]))]
