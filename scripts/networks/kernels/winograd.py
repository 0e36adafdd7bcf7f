"""3D convolutions with half the multiplications: Winograd's minimal filtering along the first axis.

A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, there along two axes of an image.
Four output slices of a 3^3 convolution are 12 2D convolutions of input slices; here they are 6, of mixtures of those.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

__all__ = ["winograd_convolution"]

SLICES = 4  # of the output, from 6 of the input
AT_ONCE = 2**13  # voxels of a mixture, which with its product is to stay in the cache
POINTS = torch.tensor([0.0, 1.0, -1.0, 0.5, -0.5], dtype=torch.float64)  # and infinity; small ones round least


def _powers(count: int) -> torch.Tensor:
    """Values at the points of the monomials up to ``count``, (6, count); at infinity that of the last one."""
    values = POINTS[:, None] ** torch.arange(count)
    return torch.cat([values, torch.eye(count, dtype=values.dtype)[-1:]])


# Toom and Cook: a product of polynomials is pointwise; the transpose of that is a convolution of 3 taps
MIX_INPUT = _powers(SLICES + 2).inverse().T.float()
MIX_KERNEL = _powers(3).float()
MIX_OUTPUT = _powers(SLICES).T.float()
WHOLE = 1  # the point whose product goes into each output slice once


def winograd_convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, slope: float) -> torch.Tensor:
    """LeakyReLU of a 3^3 convolution with zeros outside, for evaluation on a CPU; it rounds about twice as much.

    Args:
        x: (B, C, D, H, W), in channels-last order.
        weight: (O, C, 3, 3, 3).
        bias: (O,).
        slope: of the negative part.

    Returns:
        (B, O, D, H, W), in channels-last order.
    """
    kernels = torch.einsum("kt,octhw->kochw", MIX_KERNEL, weight)
    kernels = kernels.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (-1, len(weight)))
    x = x.permute(0, 2, 3, 4, 1)
    batch, depth, height, width, _ = x.shape
    result = x.new_empty(batch, depth, height, width, len(weight))
    step = SLICES * max(1, AT_ONCE // (height * width))
    for source, target in zip(x, result):
        for start in range(0, depth, step):
            _convolve_slices(source, kernels, bias, target, range(start, min(start + step, depth), SLICES))
    return F.leaky_relu_(result, slope).permute(0, 4, 1, 2, 3)


def _convolve_slices(
    source: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor, target: torch.Tensor, firsts: Sequence[int]
) -> None:
    """From ``source`` (D, H, W, C) into ``target`` (D, H, W, O), four slices from each of ``firsts`` on."""
    depth, height, width, channels = source.shape
    mixed = source.new_empty(len(MIX_INPUT), len(firsts), height, width, channels)
    for place, first in enumerate(firsts):
        low, high = max(first - 1, 0), min(first + SLICES + 1, depth)
        columns = slice(low - first + 1, high - first + 1)  # the slices outside are zero
        torch.mm(MIX_INPUT[:, columns], source[low:high].flatten(1), out=mixed[:, place].flatten(1))
    products = source.new_empty(len(MIX_INPUT), len(firsts), height, width, len(bias))
    for point, (images, kernel) in enumerate(zip(mixed.permute(0, 1, 4, 2, 3), kernels)):
        product = F.conv2d(images, kernel, bias if point == WHOLE else None, padding=1)
        products[point] = product.permute(0, 2, 3, 1)
    for place, first in enumerate(firsts):
        slices = target[first : first + SLICES].flatten(1)
        torch.mm(MIX_OUTPUT[: len(slices)], products[:, place].flatten(1), out=slices)
