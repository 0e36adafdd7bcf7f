"""What is known of a pair in addition to its two images: masks, further contrasts, labels and landmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .kernels.sampling import resize, warp, warp_with_gradient
from .similarity import SSD, Similarity, Term

__all__ = ["Guidance", "GuidanceLayout"]

AT_ONCE = 8  # label channels whose gradients are in memory at the same time


@dataclass(frozen=True)
class GuidanceLayout:
    """The channels of a network's input behind the moving and the fixed image, in this order.

    Args:
        masks: whether there are two masks, moving and fixed, from 0 to 1: what lies outside does not drive the steps.
        contrasts: number of further images of the moving and then of the fixed subject, in [0, 1], which are compared
            like the first ones.
        labels: number of label channels of the moving and then of the fixed subject, in [0, 1], which are compared by
            the squared difference.
        landmarks: whether there are d + 1 channels: the displacement to which landmarks pull, as a fraction of the size
            of the grid along each axis, and how strongly, from 0 to 1.
    """

    masks: bool = False
    contrasts: int = 0
    labels: int = 0
    landmarks: bool = False

    def split(self, image: torch.Tensor, spatial_dims: int) -> tuple[torch.Tensor, Guidance]:
        """Split an input of the network, shape (B, C, *spatial), into both images, (B, 2, *spatial), and the rest."""
        counts = [2, 2 * self.masks, 2 * self.contrasts, 2 * self.labels, (spatial_dims + 1) * self.landmarks]
        pair, *parts = image.split(counts, 1)
        return pair, Guidance(*(part if part.shape[1] else None for part in parts))


@dataclass(frozen=True)
class Guidance:
    """The channels of :class:`GuidanceLayout` on one grid, each of shape (B, C, *spatial) or None."""

    masks: torch.Tensor | None = None
    contrasts: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    landmarks: torch.Tensor | None = None

    def on_grid(self, size: Sequence[int], similarity: Similarity) -> Guidance:
        """Return the guidance on a level of the pyramid, with the contrasts as the similarity describes them."""
        parts = (self.masks, self.contrasts, self.labels, self.landmarks)
        masks, contrasts, labels, landmarks = (None if part is None else resize(part, size) for part in parts)
        if contrasts is not None:
            contrasts = torch.cat([similarity.describe(image) for image in contrasts.split(1, 1)], 1)
        return Guidance(masks, contrasts, labels, landmarks)

    def weight(self, ddf: torch.Tensor) -> torch.Tensor | None:
        """Return how much each voxel counts under a displacement, shape (B, 1, *spatial); None without masks."""
        if self.masks is None:
            return None
        moving, fixed = self.masks.split(1, 1)
        return fixed * warp(moving, ddf)

    def terms(self, ddf: torch.Tensor, similarity: Similarity) -> Iterator[Term]:
        """Yield what drives the step in addition to the images, one after the other to save memory."""
        channels = similarity.channels(ddf.shape[1])
        for part, measure, at_once in ((self.contrasts, similarity, channels), (self.labels, SSD(), AT_ONCE)):
            if part is not None:
                moving, fixed = part.chunk(2, 1)
                for of_moving, of_fixed in zip(moving.split(at_once, 1), fixed.split(at_once, 1)):
                    yield Term(measure, of_fixed, *warp_with_gradient(of_moving, ddf))

    def hold(self, ddf: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Return the step that near landmarks leads to them."""
        if self.landmarks is None:
            return step
        wanted, strength = self.landmarks.split((ddf.shape[1], 1), 1)
        size = wanted.new_tensor(ddf.shape[2:]).view(-1, *[1] * (ddf.ndim - 2))
        return torch.lerp(step, wanted * size - ddf, strength)
