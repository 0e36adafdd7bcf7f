"""The learned gradient of the regularizer: a small CNN, r_l in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from ..support.errors import InputError
from .kernels.checkpointing import recomputed
from .kernels.convolution import NEGATIVE_SLOPE, Layer, convolve

__all__ = ["CNN", "Regularizer"]

INPUTS = ("warped", "moving", "none", "step")

PART = 32  # slices along the first axis that are differentiated at once, where memory is scarce


@dataclass(frozen=True)
class CNN:
    """The architecture of the learned part of a step; by default five convolutions with 32 channels.

    Args:
        channels: number of channels of the hidden layers.
        layers: number of convolutions, at least 2.
        inputs: what the CNN sees in addition to the displacement: ``warped`` the fixed and the warped image
            ("explicit" in the paper), ``moving`` the fixed and the moving image ("implicit"), ``none`` nothing, or
            ``step`` the fixed image, the warped image and the explicit step.
        gate: multiply the result by a gate that is closed where nothing moves, so that an image that is registered to
            itself stays where it is.

    Raises:
        InputError: when an option is out of its range.
    """

    channels: int = 32
    layers: int = 5
    inputs: str = "warped"
    gate: bool = False

    def __post_init__(self) -> None:
        if self.channels < 1 or self.layers < 2:
            raise InputError(
                f"a CNN needs at least 1 channel and 2 layers, got channels {self.channels} and layers {self.layers}."
            )
        if self.inputs not in INPUTS:
            raise InputError(f"unknown inputs '{self.inputs}' of a CNN: expected one of {', '.join(INPUTS)}.")

    def build(self, spatial_dims: int, image_channels: int, checkpoint: bool = False) -> Regularizer:
        """Make a regularizer with new parameters for images with this number of channels."""
        images = {"none": 0, "step": 2 * image_channels + spatial_dims}.get(self.inputs, 2 * image_channels)
        return Regularizer(spatial_dims, spatial_dims + images, self.channels, self.layers, checkpoint)

    def select(
        self, fixed: torch.Tensor, moving: torch.Tensor, warped: torch.Tensor, step: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return the inputs of the regularizer in addition to the displacement."""
        return {"warped": (fixed, warped), "moving": (fixed, moving), "none": (), "step": (fixed, warped, step)}[
            self.inputs
        ]


class Regularizer(nn.Module):
    """Five 3^d convolutions of 32 channels with LeakyReLU(0.2), the last without activation (Qiu et al., section 2.2).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        num_channels: channels of the hidden layers.
        num_layers: number of convolutions, at least 2.
        checkpoint: in training, compute the hidden activations again in the backward pass, in parts of the volume.

    Input (B, in_channels, *spatial) in one or several tensors, output (B, spatial_dims, *spatial).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_channels: int = 32,
        num_layers: int = 5,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        channels = [in_channels, *[num_channels] * (num_layers - 1), spatial_dims]
        conv = Conv[Conv.CONV, spatial_dims]
        layers = [conv(i, o, kernel_size=3, padding=1) for i, o in pairwise(channels)]
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, a=NEGATIVE_SLOPE, nonlinearity="leaky_relu")
            nn.init.zeros_(layer.bias)
        self.convs = nn.ModuleList(layers)
        self.checkpoint = checkpoint

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            return self._in_parts(inputs)
        return self._whole(*inputs)

    def _whole(self, *inputs: torch.Tensor) -> torch.Tensor:
        convs = cast("list[nn.Conv2d | nn.Conv3d]", list(self.convs))
        device, dtype = inputs[0].device.type, convs[0].weight.dtype
        if torch.is_autocast_enabled(device) and dtype == torch.float32:
            dtype = torch.get_autocast_dtype(device)
        layers = [Layer(conv.weight.to(dtype), cast("torch.Tensor", conv.bias).to(dtype)) for conv in convs]
        x = torch.cat(inputs, dim=1).to(dtype)
        if self.checkpoint or x.ndim == 4 or x.element_size() < 4:
            return convolve(x, layers)
        # to save memory, the training of a volume in float32 keeps every second activation only
        for part in (layers[start : start + 2] for start in range(0, len(layers), 2)):
            x = recomputed(partial(convolve, layers=part, last=part[-1] is layers[-1]), x)
        return x

    def _in_parts(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Each part includes neighbouring slices, one per convolution and side, so that the parts equal the whole."""
        depth, around = inputs[0].shape[2], len(self.convs)
        parts = []
        for start in range(0, depth, PART):
            first = max(start - around, 0)
            views = (x[:, :, first : start + PART + around] for x in inputs)
            part = recomputed(self._whole, *views)
            parts.append(part[:, :, start - first : start - first + PART])
        return torch.cat(parts, dim=2)
