"""Runs a registration network, in parts if memory is short."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor

from ..images.intensities import CONTRAST
from ..networks.gradirn import GraDIRN
from ..networks.guidance import GuidanceLayout
from ..networks.kernels.precision import autocast_dtype
from ..networks.kernels.sampling import resize, upsample
from ..support.command_line import number
from ..support.memory import GIB, memory_bytes
from ..support.notices import warn

__all__ = ["RegistrationInferer"]

COMFORTABLE = GIB // 16  # bytes for the slices at once on a CPU, where more are not faster


class RegistrationInferer(Inferer):
    """Run a registration network on volumes; a 2D network registers a stack slice by slice, as one batch.

    In evaluation, a pair or slice in which one of the images is constant is not moved.

    Where the network says how much memory it will take (``evaluation_bytes``) and that is not there, the pairs or
    slices go in smaller batches, and a pair that is too large alone at half the resolution, with a warning.

    A pair may come on a grid that is twice as fine as the network's. The network registers it at half this resolution,
    and steps of its finest level continue on the fine grid, where there is memory for them.

    Args:
        spatial_dims: 2 or 3, as the network.
        amp: convolutions in half precision: ``auto`` where the device has bfloat16 in hardware, True or False always
            or never.
        memory_limit: GiB that a registration may take; None is what is free.
        fine_steps: steps on a grid that is twice as fine as the network's; a network whose finest level has a learned
            part takes none.

    Raises:
        InputError: when the limit is not a number above 0, the steps are not a whole number from 0, or ``amp`` is none
            of the three.
    """

    def __init__(
        self, spatial_dims: int, amp: bool | str = False, memory_limit: float | None = None, fine_steps: int = 0
    ) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        autocast_dtype(amp, "cpu")  # refuses a misspelt option before any image is read
        self.amp = amp
        self.memory_limit = None if memory_limit is None else number("memory_limit", memory_limit, above=0)
        self.fine_steps = int(number("fine_steps", fine_steps, above=-1, whole=True))

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable[..., torch.Tensor],
        *args: Any,
        layout: GuidanceLayout | None = None,
        fine: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Map images (B, 2, X, Y, Z), or (B, 2, X, Y) for a 2D network, to ddfs in voxels.

        Args:
            inputs: the images; with a layout they have further channels.
            network: maps images (B, 2, *spatial) to ddfs.
            layout: what the further channels are, for GraDIRN.
            fine: whether the grid of the images is twice as fine as the network's.

        Returns:
            (B, 3, X, Y, Z), with zero through-plane motion from a 2D network, or (B, 2, X, Y) for 2D images.
        """
        image = convert_to_tensor(inputs, track_meta=False)
        estimate = None if torch.is_grad_enabled() else getattr(network, "evaluation_bytes", None)
        if layout is not None:
            estimate = estimate and partial(estimate, guidance_channels=image.shape[1] - 2)

        def run(pairs: torch.Tensor, first: int) -> torch.Tensor:
            guided = {} if layout is None else {"layout": layout.select(first, len(pairs))}
            return network(pairs, *args, **guided, **kwargs)

        register = partial(self._register, network=run, estimate=estimate)
        dtype = autocast_dtype(self.amp, image.device)
        with torch.autocast(image.device.type, dtype, enabled=dtype is not None):
            if fine:
                return _still_where_constant(self._register_finely(image, network, layout, register, estimate), image)
            if image.ndim == self.spatial_dims + 2:
                return _still_where_constant(register(image), image)
            batch, _, *plane, depth = image.shape
            slices = image.movedim(-1, 1).flatten(0, 1)
            ddf = _still_where_constant(register(slices), slices).unflatten(0, (batch, depth)).movedim(1, -1)
            return torch.cat([ddf, ddf.new_zeros(batch, 1, *plane, depth)], dim=1)

    def _register(
        self,
        pairs: torch.Tensor,
        network: Callable[[torch.Tensor, int], torch.Tensor],
        estimate: Callable[[torch.Size], int] | None,
    ) -> torch.Tensor:
        size = pairs.shape[2:]
        if estimate is None:
            return network(pairs, 0)
        limit = memory_bytes(self.memory_limit, pairs.device)
        needed = estimate(size)
        if needed <= limit:
            comfortable = limit if pairs.is_cuda else min(limit, COMFORTABLE)
            parts = pairs.split(max(1, int(comfortable // needed)))
            if len(parts) == 1:
                return network(pairs, 0)
            ddf = pairs.new_empty(len(pairs), self.spatial_dims, *size)
            for first, part in zip(range(0, len(pairs), len(parts[0])), parts):
                ddf[first : first + len(part)] = network(part, first)
            return ddf
        _warn_of_half(size, needed, limit)
        return upsample(self._register(resize(pairs, _half(size)), network, estimate), size)

    def _register_finely(
        self,
        pairs: torch.Tensor,
        network: Callable[..., torch.Tensor],
        layout: GuidanceLayout | None,
        register: Callable[[torch.Tensor], torch.Tensor],
        estimate: Callable[[torch.Size], int] | None,
    ) -> torch.Tensor:
        """Register pairs at half their resolution, and continue on their grid."""
        size = pairs.shape[2:]
        ddf = register(resize(pairs, _half(size)))
        if not (self.fine_steps and isinstance(network, GraDIRN) and network.has_fine_steps):
            return upsample(ddf, size)
        needed, limit = estimate(size) if estimate else 0, memory_bytes(self.memory_limit, pairs.device)
        if needed > limit:
            _warn_of_half(size, needed, limit)
            return upsample(ddf, size)
        return network.fine_steps(pairs, ddf, self.fine_steps, layout)


def _half(size: torch.Size) -> list[int]:
    return [(extent + 1) // 2 for extent in size]


def _warn_of_half(size: torch.Size, needed: float, limit: float) -> None:
    warn(
        f"{tuple(size)} voxels need about {needed / GIB:.1f} GiB, there are {limit / GIB:.1f}: "
        f"registered at half the resolution, {tuple(_half(size))}."
    )


def _still_where_constant(ddf: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Set the ddf (B, d, *spatial) of each pair (B, C, *spatial) to 0 if one of its images is constant."""
    if torch.is_grad_enabled():  # a network in training may return more than a ddf
        return ddf
    values = pairs[:, :2].flatten(2)
    constant = (values.amax(2) - values.amin(2) <= CONTRAST).any(1)
    return torch.where(constant.view(-1, *[1] * (ddf.ndim - 1)), 0, ddf)
