"""The start of a training: the step sizes and the scale of the learned steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from .levels import for_each_level
from .step import STEP_SIZE_SCALE, Block

__all__ = ["initialise"]


def initialise(
    network: nn.Module, taus: float | Sequence[float | None] | None = None, output_scale: float = 1.0
) -> nn.Module:
    """Set the step sizes of a GraDIRN, and scale its regularizers, before it is trained or used without training.

    The constructor of the network calls this function with the defaults, which are those of the paper.

    Args:
        network: the network, changed in place; a network without steps, such as VoxelMorph, does not change.
        taus: step size tau, one for all levels or one for each. None is the published 5 / (number of steps + 1), which
            is too large for LNCC in flat regions of an image.
        output_scale: factor for the weights of each regularizer's last convolution. With a small factor, a training
            starts from small smooth steps.

    Returns:
        the network.

    Raises:
        InputError: when the number of taus is not the number of levels.
    """
    if not hasattr(network, "levels"):
        return network
    levels = cast("list[list[Block]]", network.levels)
    published = 5 / (cast("int", network.num_steps) + 1)
    for tau, blocks in zip(for_each_level("taus", taus, len(levels)), levels):
        for block in blocks:
            block.step_size.data.fill_((published if tau is None else tau) / STEP_SIZE_SCALE)
            if block.regularizer is not None:
                cast("torch.Tensor", block.regularizer.convs[-1].weight).data.mul_(output_scale)
    return network
