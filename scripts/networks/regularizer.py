"""The learned gradient of the regularizer: a small CNN, r_l in the paper."""

from __future__ import annotations

from functools import cache, partial
from itertools import pairwise
from typing import cast

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from ..errors import InputError
from .memory import recomputed
from .winograd import winograd_convolution

__all__ = ["Regularizer"]

NEGATIVE_SLOPE = 0.2
MANY_CHANNELS = 32  # with fewer, half the multiplications are not worth the additions


class Regularizer(nn.Module):
    """Five 3^d convolutions of 32 channels with LeakyReLU(0.2), the last without activation (Qiu et al., section 2.2).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        num_channels: channels of the hidden layers.
        num_layers: number of convolutions, at least 2.

    Input (B, in_channels, *spatial), output (B, spatial_dims, *spatial).
    """

    def __init__(self, spatial_dims: int, in_channels: int, num_channels: int = 32, num_layers: int = 5) -> None:
        super().__init__()
        if num_layers < 2:
            raise InputError(f"num_layers must be at least 2, got {num_layers}.")
        channels = [in_channels, *[num_channels] * (num_layers - 1), spatial_dims]
        conv = Conv[Conv.CONV, spatial_dims]
        layers = [conv(i, o, kernel_size=3, padding=1) for i, o in pairwise(channels)]
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, a=NEGATIVE_SLOPE, nonlinearity="leaky_relu")
            nn.init.zeros_(layer.bias)
        self.convs = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # channels last is what convolutions on a CPU and on tensor cores like best
        memory_format = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        convs = cast("list[nn.Conv2d | nn.Conv3d]", list(self.convs))
        x = x.to(dtype=convs[0].weight.dtype, memory_format=memory_format)
        if torch.is_grad_enabled():
            return _training_forward(convs, x)
        if _can_fuse(convs[0], x):
            for conv in convs[:-1]:
                x = _fused_activation(conv, x)
            return _fused_convolution(convs[-1], x, "none", [])
        for conv in convs[:-1]:
            x = _leaky_relu(conv(x))
        return convs[-1](x)


def _training_forward(convs: list[nn.Conv2d | nn.Conv3d], x: torch.Tensor) -> torch.Tensor:
    """Keeps every second hidden activation only, and computes the one before it again in the backward pass."""

    def two(first: nn.Module, second: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        return second(_leaky_relu(first(inputs)))

    hidden = convs[:-1]
    for first, second in zip(hidden[::2], hidden[1::2]):
        x = _leaky_relu(recomputed(partial(two, first, second), x))
    if len(hidden) % 2:
        x = _leaky_relu(hidden[-1](x))
    return convs[-1](x)


def _leaky_relu(x: torch.Tensor) -> torch.Tensor:
    """In place: the convolution before does not need its own output in the backward pass."""
    return nn.functional.leaky_relu_(x, NEGATIVE_SLOPE)


def _can_fuse(conv: nn.Conv2d | nn.Conv3d, x: torch.Tensor) -> bool:
    """oneDNN computes convolution and activation in one pass; it takes float32 only, and no autograd.

    Asked for by name it also computes the small 3D convolutions for which torch takes a slower one.
    """
    return bool(
        x.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and not torch.jit.is_tracing()
        and not torch.compiler.is_exporting()
        and _fused_convolution_works()
    )


@cache
def _fused_convolution_works() -> bool:
    """Try the operator once: it is not part of torch's public interface, and not in every build of it."""
    with torch.random.fork_rng(devices=[]):
        conv, x = nn.Conv2d(1, 1, 3, padding=1), torch.ones(1, 1, 3, 3)
    try:
        fused = _fused_convolution(conv, x, "leaky_relu", [NEGATIVE_SLOPE])
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.allclose(fused, nn.functional.leaky_relu(conv(x), NEGATIVE_SLOPE), atol=1e-6)


def _fused_activation(conv: nn.Conv2d | nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    if x.ndim == 5 and conv.in_channels >= MANY_CHANNELS and not torch.compiler.is_compiling():
        return winograd_convolution(x, conv.weight, cast("torch.Tensor", conv.bias), NEGATIVE_SLOPE)
    return _fused_convolution(conv, x, "leaky_relu", [NEGATIVE_SLOPE])


def _fused_convolution(
    conv: nn.Conv2d | nn.Conv3d, x: torch.Tensor, activation: str, scalars: list[float]
) -> torch.Tensor:
    return torch.ops.mkldnn._convolution_pointwise(
        x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, 1, activation, scalars, ""
    )
