"""Computation in place of memory, in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

__all__ = ["recomputed"]


def recomputed(function: Callable[..., Any], *tensors: torch.Tensor) -> Any:
    """Call a function whose intermediate results are not kept for the backward pass, which computes them again."""
    if not torch.is_grad_enabled():
        return function(*tensors)
    return checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
