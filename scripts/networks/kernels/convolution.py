"""The convolutions of the regularizer, fused with their activations where a CPU can do that."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

__all__ = ["NEGATIVE_SLOPE", "Layer", "convolve"]

NEGATIVE_SLOPE = 0.2


class Layer(NamedTuple):
    """A convolution with 3 taps along each axis."""

    weight: torch.Tensor  # (O, C, 3, ...)
    bias: torch.Tensor  # (O,)


def convolve(x: torch.Tensor, layers: Sequence[Layer], last: bool = True) -> torch.Tensor:
    """Convolutions that keep the size, with LeakyReLU(0.2) after each but the ``last`` one of a network.

    Args:
        x: (B, C, *spatial).
        layers: weights and biases, of the dtype of ``x``.
        last: whether these layers end the network.

    Returns:
        (B, O, *spatial), of the dtype of ``x``.
    """
    x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    fused = _has_fused_convolution(x) and not torch.is_grad_enabled()
    for layer in layers[: len(layers) - last]:
        x = _fused_convolution(x, layer, "leaky_relu", [NEGATIVE_SLOPE]) if fused else _activated(x, layer)
    if not last:
        return x
    return (_fused_convolution if fused else _convolution)(x, layers[-1])


def _convolution(x: torch.Tensor, layer: Layer) -> torch.Tensor:
    return (F.conv2d if x.ndim == 4 else F.conv3d)(x, *layer, padding=1)


def _activated(x: torch.Tensor, layer: Layer) -> torch.Tensor:
    return F.leaky_relu_(_convolution(x, layer), NEGATIVE_SLOPE)


def _fused_convolution(
    x: torch.Tensor, layer: Layer, activation: str = "none", scalars: Sequence[float] = ()
) -> torch.Tensor:
    """Convolution and activation in one pass of oneDNN, which for small volumes is also faster than torch's choice."""
    ones = [1] * (x.ndim - 2)
    return torch.ops.mkldnn._convolution_pointwise(x, *layer, ones, ones, ones, 1, activation, scalars, "")


def _has_fused_convolution(x: torch.Tensor) -> bool:
    """Whether the operator, which knows no autograd and must not be part of an exported network, can take ``x``."""
    return bool(
        x.device.type == "cpu"
        and torch.backends.mkldnn.enabled
        and not torch.jit.is_tracing()
        and not torch.compiler.is_exporting()
        and _fused_convolution_works()
        and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


def _fused_convolution_works() -> bool:
    return _try_fused_convolution()


# what torch.compiler.assume_constant_result does, which imports the compiler, nearly a second, for it
_fused_convolution_works._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _try_fused_convolution() -> bool:
    """The operator is not part of torch's public interface, and not in every build of it."""
    x, layer = torch.ones(1, 1, 3, 3), Layer(torch.full([1, 1, 3, 3], -1.0), torch.zeros(1))
    try:
        fused = _fused_convolution(x, layer, "leaky_relu", [NEGATIVE_SLOPE])
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    neighbours = torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]])
    return torch.allclose(fused[0, 0], -NEGATIVE_SLOPE * neighbours)
