"""Large volumes are computed part by part: more at once takes memory, and is no faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

__all__ = ["deviation", "masked", "mean", "share", "slabs"]

SLAB = 2**18  # voxels at once


def slabs(shape: Sequence[int]) -> list[slice]:
    """Cut a grid of this shape into slabs along its first axis."""
    rows = max(1, SLAB // max(1, math.prod(shape[1:])))
    return [slice(first, min(first + rows, shape[0])) for first in range(0, shape[0], rows)]


def masked(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return ``values[mask]`` for two tensors of one shape; numpy takes a tenth of torch's time and memory for it."""
    if int(mask.count_nonzero()) == mask.numel():
        return values.flatten()
    return torch.from_numpy(values.numpy()[mask.numpy()])


def share(mask: torch.Tensor) -> float:
    """Return which share of a mask is true; NaN if it is empty."""
    return int(mask.count_nonzero()) / mask.numel() if mask.numel() else float("nan")


def mean(values: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.double) -> float:
    """Return the mean of values (N,), changed and in double precision; NaN without values."""
    return sum(change(part).sum().item() for part in values.split(SLAB)) / len(values) if len(values) else float("nan")


def deviation(values: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Return the standard deviation of values (N,), changed and in double precision; NaN without values."""
    if not len(values):
        return float("nan")
    total = squares = 0.0
    center = change(values[:SLAB]).mean()  # near the mean, so that the squares stay small
    for part in values.split(SLAB):
        distance = change(part) - center
        total, squares = total + distance.sum().item(), squares + (distance @ distance).item()
    return math.sqrt(max(0.0, squares / len(values) - (total / len(values)) ** 2))
