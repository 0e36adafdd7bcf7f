"""The convolutions of the regularizer and their gradients: what oneDNN and torch do fastest on each device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["NEGATIVE_SLOPE", "Convolutions", "Layer", "channels_last", "convolve"]

Layer = tuple[torch.Tensor, torch.Tensor]  # weight (O, C, 3, ...) and bias (O,)

NEGATIVE_SLOPE = 0.2
SMALL = 20480  # channels by the first two extents: one image up to this torch differentiates slower than two


class Convolutions(torch.autograd.Function):
    """:func:`convolve` by some of a network's layers, for training; keeps the input, and computes the rest again.

    ``apply(x, first, last, weight, bias, weight, bias, ...)``. The activation that made the input of all but the
    ``first`` layers is differentiated here, where that input is kept, and not where it was made.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, first: bool, last: bool, *parameters: torch.Tensor) -> torch.Tensor:
        ctx.first, ctx.last = first, last
        ctx.save_for_backward(x, *parameters)
        return convolve(x, _layers(parameters), last)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, *parameters = ctx.saved_tensors
        layers = _layers(parameters)
        inputs = list(accumulate(layers[:-1], lambda x, layer: _activated(x, *layer), initial=x))
        found: list[torch.Tensor] = []
        backward = _few_channels_backward if ctx.last and _by_onednn(x) else _convolution_backward
        while layers:
            x, (weight, _) = inputs.pop(), layers.pop()
            at_input = ctx.first and not layers
            grad, *of_parameters = backward(grad, x, weight, not at_input or ctx.needs_input_grad[0])
            if not at_input:
                into = {} if torch.is_grad_enabled() else {"grad_input": grad}
                grad = torch.ops.aten.leaky_relu_backward(grad, x, NEGATIVE_SLOPE, True, **into)
            found, backward = [*of_parameters, *found], _convolution_backward
        return grad, None, None, *found


def _layers(parameters: Sequence[torch.Tensor]) -> list[Layer]:
    return list(zip(parameters[::2], parameters[1::2]))


def convolve(x: torch.Tensor, layers: Sequence[Layer], last: bool) -> torch.Tensor:
    """3^d convolutions with LeakyReLU(0.2), without it after the ``last`` one of a network; no autograd.

    Args:
        x: (B, C, *spatial), channels last in memory.
        layers: weight and bias of each, of the dtype of ``x``.
        last: whether they end the network.

    Returns:
        (B, O, *spatial), of the dtype of ``x``, or float32.
    """
    for layer in layers[: len(layers) - last]:
        x = _activated(x, *layer)
    if not last:
        return x
    return (_few_channels if _by_onednn(x) else _convolution)(x, *layers[-1])


def _few_channels(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A convolution by oneDNN into fewer channels than fill its registers, float32.

    The three taps along the first axis are channels of a convolution of a third of the work, to be added up.
    """
    taps = _fused_convolution(x, _taps_as_channels(weight))
    before, here, after = taps.to(dtype=torch.float32, memory_format=torch.contiguous_format).chunk(3, dim=1)
    y = here + bias.view(-1, *[1] * (x.ndim - 2))
    y[:, :, 1:].add_(before[:, :, :-1])
    y[:, :, :-1].add_(after[:, :, 1:])
    return y


def _few_channels_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, of_x: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grad = grad.to(dtype=x.dtype, memory_format=channels_last(x))
    around = F.pad(grad, [*[0, 0] * (x.ndim - 3), 1, 1])
    of_taps = torch.cat([around[:, :, 2:], grad, around[:, :, :-2]], dim=1)
    grad_x, of_weight, of_bias = _convolution_backward(of_taps, x, _taps_as_channels(weight), of_x)
    return grad_x, of_weight.squeeze(2).unflatten(0, (3, -1)).movedim(0, 2), of_bias.view(3, -1)[1]


def _taps_as_channels(weight: torch.Tensor) -> torch.Tensor:
    """(3 O, C, 1, ...) of (O, C, 3, ...)."""
    return weight.movedim(2, 0).flatten(0, 1).unsqueeze(2)


def channels_last(x: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if x.ndim == 4 else torch.channels_last_3d


def _activated(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Convolution and LeakyReLU in one pass where oneDNN can, the activation in place elsewhere."""
    if torch.is_grad_enabled() or not _by_onednn(x):
        return F.leaky_relu_(_convolution(x, weight, bias), NEGATIVE_SLOPE)
    return _fused_convolution(x, weight, bias, "leaky_relu", [NEGATIVE_SLOPE])


def _convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.convolution(x, weight, bias, *_geometry(weight), False, [0] * (x.ndim - 2), 1)


def _convolution_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, of_x: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of input, weight and bias."""
    geometry = (*_geometry(weight), False, [0] * (x.ndim - 2), 1)
    alone = len(x) == 1 and x.shape[1:4].numel() <= SMALL and x.dtype == torch.float32 and _by_onednn(x)
    if alone:
        grad, x = (torch.cat([tensor, torch.zeros_like(tensor)]) for tensor in (grad, x))
    found = torch.ops.aten.convolution_backward(grad, x, weight, weight.shape[:1], *geometry, [of_x, True, True])
    return (found[0][:1], *found[1:]) if alone and of_x else found


def _geometry(weight: torch.Tensor) -> tuple[list[int], list[int], list[int]]:
    """Stride, padding and dilation of a convolution that keeps the size."""
    ones = [1] * (weight.ndim - 2)
    return ones, [extent // 2 for extent in weight.shape[2:]], ones


def _by_onednn(x: torch.Tensor) -> bool:
    """Whether oneDNN's operator, which knows no autograd, can be asked for by name.

    It makes convolution and activation in one pass, and small 3D convolutions for which torch takes a slower one.
    """
    return bool(
        x.device.type == "cpu"
        and torch.backends.mkldnn.enabled
        and not torch.jit.is_tracing()
        and not torch.compiler.is_exporting()
        and _fused_convolution_works()
        and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


@torch.compiler.assume_constant_result
def _fused_convolution_works() -> bool:
    return _try_fused_convolution()


@cache
def _try_fused_convolution() -> bool:
    """The operator is not part of torch's public interface, and not in every build of it."""
    weight, x = torch.full([1, 1, 3, 3], -1.0), torch.ones(1, 1, 3, 3)
    try:
        fused = _fused_convolution(x, weight, torch.zeros(1), "leaky_relu", [NEGATIVE_SLOPE])
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    neighbours = torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]])
    return torch.allclose(fused[0, 0], -NEGATIVE_SLOPE * neighbours)


def _fused_convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    scalars: Sequence[float] = (),
) -> torch.Tensor:
    stride, padding, dilation = _geometry(weight)
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, 1, activation, scalars, ""
    )
