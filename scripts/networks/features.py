"""Learned features of an image, which drive the explicit step together with its intensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from monai.networks.nets import UNet
from torch import nn

from ..support.errors import InputError
from .kernels.sampling import pad_to_multiple
from .levels import for_each_level

__all__ = ["FeatureNet", "Features"]

INITIAL_LOGIT = -3.0  # a structure is small: training starts faster from features that are nearly 0 everywhere


@dataclass(frozen=True)
class Features:
    """Which features of the images are learned, and where they are used.

    Args:
        count: how many.
        channels: of each level of the U-Net that makes them, fine to coarse.
        residual_units: of each level of the U-Net.
        used: how many of the first of them drive the steps, one number or one for each level of the pyramid, coarse to
            fine; None is all.

    Raises:
        InputError: when a number is out of its range.
    """

    count: int
    channels: Sequence[int] = (16, 32, 32)
    residual_units: int = 0
    used: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"the count of features must be at least 1, got {self.count}; features null is none.")

    def build(self, spatial_dims: int) -> FeatureNet:
        """The network that makes them, with new parameters."""
        return FeatureNet(spatial_dims, self.count, self.channels, self.residual_units)

    def used_on(self, num_levels: int) -> tuple[int, ...]:
        """How many drive the steps of each level, coarse to fine."""
        counts = for_each_level("the used features", self.count if self.used is None else self.used, num_levels)
        if not all(0 <= count <= self.count for count in counts):
            raise InputError(f"the used features must be numbers from 0 to {self.count}, got {counts}.")
        return counts


class FeatureNet(nn.Module):
    """A small U-Net from one image to features in [0, 1], the same for fixed and moving.

    Args:
        spatial_dims: 2 or 3.
        num_features: channels of the result.
        channels: of each level of the U-Net, fine to coarse.
        residual_units: of each level.

    Attributes:
        factor: of the size between the image and its coarsest level.

    Input (B, 1, *spatial), output (B, num_features, *spatial).
    """

    def __init__(self, spatial_dims: int, num_features: int, channels: Sequence[int], residual_units: int) -> None:
        super().__init__()
        strides = [2] * (len(channels) - 1)
        self.unet = UNet(spatial_dims, 1, num_features, channels, strides, num_res_units=residual_units)
        self.factor = 2 ** (len(channels) - 1)
        upsampling = [m for m in self.unet.modules() if isinstance(m, (nn.ConvTranspose2d, nn.ConvTranspose3d))]
        nn.init.constant_(cast("torch.Tensor", upsampling[-1].bias), INITIAL_LOGIT)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.unet(pad_to_multiple(image, self.factor)).sigmoid()
        return features[(..., *(slice(extent) for extent in image.shape[2:]))]
