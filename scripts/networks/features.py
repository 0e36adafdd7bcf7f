"""Learned features of an image, which drive the explicit step together with the intensities."""

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

INITIAL_LOGIT = -3.0  # structures are small: a training is faster at first if features start close to 0 everywhere


@dataclass(frozen=True)
class Features:
    """The learned features of a network, and the levels that use them.

    Args:
        count: number of features.
        channels: channels of each level of the U-Net that computes the features, fine to coarse.
        residual_units: number of residual units of each level of the U-Net.
        used: how many of the features, counted from the first one, drive the steps: one number, or one for each level
            of the pyramid, coarse to fine; None uses all.

    Raises:
        InputError: when a number is out of range.
    """

    count: int
    channels: Sequence[int] = (16, 32, 32)
    residual_units: int = 0
    used: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(
                f"the count of features must be at least 1, got {self.count}; no features are features: null."
            )

    def build(self, spatial_dims: int) -> FeatureNet:
        """Make the network that computes the features, with new parameters."""
        return FeatureNet(spatial_dims, self.count, self.channels, self.residual_units)

    def used_on(self, num_levels: int) -> tuple[int, ...]:
        """Return how many features drive the steps of each level, coarse to fine.

        Raises:
            InputError: when a number is out of range.
        """
        counts = for_each_level("the used features", self.count if self.used is None else self.used, num_levels)
        if not all(0 <= count <= self.count for count in counts):
            raise InputError(f"the used features must be numbers from 0 to {self.count}, got {counts}.")
        return counts


class FeatureNet(nn.Module):
    """A small U-Net from an image to features in [0, 1], the same for the fixed and the moving image.

    Args:
        spatial_dims: 2 or 3.
        num_features: channels of the result.
        channels: channels of each level of the U-Net, fine to coarse.
        residual_units: number of residual units of each level.

    Attributes:
        factor: ratio of the sizes of the image and the coarsest level.

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
