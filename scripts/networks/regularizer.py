"""The learned gradient of the regularizer: a small CNN, r_l in the paper."""

from __future__ import annotations

from collections.abc import Sequence
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
PART = 32  # slices along the first axis that are differentiated at once, where memory is scarce


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
        if num_layers < 2:
            raise InputError(f"num_layers must be at least 2, got {num_layers}.")
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
        convs, x = self._prepare(*inputs)
        if torch.is_grad_enabled():
            return _training_forward(convs, x)
        if _can_fuse(convs[0], x):
            for conv in convs[:-1]:
                x = _fused_activation(conv, x)
            return _fused_convolution(convs[-1], x, "none", [])
        return _plain_forward(convs, x)

    def _prepare(self, *inputs: torch.Tensor) -> tuple[list[nn.Conv2d | nn.Conv3d], torch.Tensor]:
        """The convolutions and their input, channels last, which they like best on a CPU and on tensor cores."""
        convs = cast("list[nn.Conv2d | nn.Conv3d]", list(self.convs))
        memory_format = torch.channels_last if inputs[0].ndim == 4 else torch.channels_last_3d
        return convs, torch.cat(inputs, dim=1).to(dtype=convs[0].weight.dtype, memory_format=memory_format)

    def _in_parts(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Slices beyond a part, as many as there are convolutions, make it equal to that of the whole."""
        depth, around = inputs[0].shape[2], len(self.convs)
        parts = []
        for start in range(0, depth, PART):
            first = max(start - around, 0)
            views = (x[:, :, first : start + PART + around] for x in inputs)
            part = recomputed(lambda *part: _plain_forward(*self._prepare(*part)), *views)
            parts.append(part[:, :, start - first : start - first + PART])
        return torch.cat(parts, dim=2)


def _plain_forward(convs: list[nn.Conv2d | nn.Conv3d], x: torch.Tensor) -> torch.Tensor:
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
