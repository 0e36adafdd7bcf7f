"""From a preprocessed pair to its displacement field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor

__all__ = ["RegistrationInferer"]


class RegistrationInferer(Inferer):
    """Run a registration network on volumes; a 2D network registers a stack slice by slice, as one batch.

    Args:
        spatial_dims: of the network.
        amp: convolutions in half precision, float16 on a GPU and bfloat16 on a CPU.
    """

    def __init__(self, spatial_dims: int, amp: bool = False) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.amp = amp

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Map images (B, 2, X, Y, Z), or (B, 2, X, Y) for a 2D network, to ddfs in voxels.

        Returns:
            (B, 3, X, Y, Z), with zero through-plane motion from a 2D network, or (B, 2, X, Y) for 2D images.
        """
        image = convert_to_tensor(inputs, track_meta=False)
        with torch.autocast(image.device.type, enabled=self.amp):
            return self._register(image, lambda batch: network(batch, *args, **kwargs))

    def _register(self, image: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if image.ndim == self.spatial_dims + 2:
            return network(image)
        batch, _, *plane, depth = image.shape
        slices = image.movedim(-1, 1).flatten(0, 1)
        ddf = network(slices).unflatten(0, (batch, depth)).movedim(1, -1)
        return torch.cat([ddf, ddf.new_zeros(batch, 1, *plane, depth)], dim=1)
