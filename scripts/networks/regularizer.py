"""The learned gradient of the regularizer: a small CNN, r_l in the paper."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import cast

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from ..errors import InputError

__all__ = ["Regularizer"]

NEGATIVE_SLOPE = 0.2


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
        *hidden, last = cast("list[nn.Conv2d | nn.Conv3d]", list(self.convs))
        x = x.to(dtype=last.weight.dtype, memory_format=memory_format)
        for conv in hidden:
            x = _conv_leaky_relu(conv, x)
        return last(x)


def _conv_leaky_relu(conv: nn.Conv2d | nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    if _can_fuse(conv, x):
        return _fused_convolution(conv, x)
    # in place: the convolution does not need its own output in the backward pass
    return nn.functional.leaky_relu_(conv(x), NEGATIVE_SLOPE)


def _can_fuse(conv: nn.Conv2d | nn.Conv3d, x: torch.Tensor) -> bool:
    """oneDNN computes convolution and activation in one pass; only in float32, without autograd or autocast."""
    return bool(
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and not torch.jit.is_tracing()
        and _fused_convolution_works()
    )


@cache
def _fused_convolution_works() -> bool:
    """Try the operator once: it is not part of torch's public interface, and not in every build of it."""
    with torch.random.fork_rng(devices=[]):
        conv, x = nn.Conv2d(1, 1, 3, padding=1), torch.ones(1, 1, 3, 3)
    try:
        fused = _fused_convolution(conv, x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.allclose(fused, nn.functional.leaky_relu(conv(x), NEGATIVE_SLOPE), atol=1e-6)


def _fused_convolution(conv: nn.Conv2d | nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._convolution_pointwise(
        x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, 1, "leaky_relu", [NEGATIVE_SLOPE], ""
    )
