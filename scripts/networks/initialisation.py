"""How a network starts: the step sizes and the scale of the learned steps before a training."""

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

    The constructor of the network has done so with the defaults, which are those of the paper.

    Args:
        network: changed in place; one without steps, such as VoxelMorph, stays as it is.
        taus: step size tau, as used, of all blocks or of the blocks of each level. None is the published
            5 / (number of steps + 1), too much for LNCC where images are flat.
        output_scale: factor of the weights of each regularizer's last convolution. A small one lets a training start
            from small smooth steps.

    Returns:
        the network.

    Raises:
        InputError: when the number of taus is not that of the levels.
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
