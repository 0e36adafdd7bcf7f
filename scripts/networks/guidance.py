"""What is known of a pair in addition to its two images: masks, further contrasts, labels and landmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from .kernels.sampling import resize, warp, warp_with_gradient
from .similarity import SSD, Similarity, Term

__all__ = ["Guidance", "GuidanceLayout", "Landmarks"]

AT_ONCE = 8  # label channels whose gradients are in memory at the same time
CORRECTIONS = 3  # after each step, since a displacement is not linear
LOOSE = 1e-2  # added to the kernel matrix of landmarks, since they are not exact


@dataclass(frozen=True)
class Landmarks:
    """Pairs of points that the displacement is to bring together. Positions are 0 in the first and 1 in the last voxel.

    A correction of the displacement is a sum of Gaussian kernels at the points of the fixed image, with weights that
    bring each of them to its partner.

    Args:
        fixed: positions in the fixed image, shape (N, d).
        moving: positions in the moving image, of the same shape.
        width: standard deviation of the kernels along each axis, in the same unit, shape (d,).
        samples: index of the sample of the batch, such as the slice of a stack, of each pair of points, shape (N,).
    """

    fixed: torch.Tensor
    moving: torch.Tensor
    width: torch.Tensor
    samples: torch.Tensor

    def select(self, first: int, count: int) -> Landmarks:
        """Return the landmarks of some samples, which become samples 0 to ``count`` - 1."""
        chosen = (self.samples >= first) & (self.samples < first + count)
        return Landmarks(self.fixed[chosen], self.moving[chosen], self.width, self.samples[chosen] - first)

    def correct(self, ddf: torch.Tensor) -> torch.Tensor:
        """Return a displacement, (B, d, *spatial) in voxels, that is corrected near the landmarks."""
        if not len(self.samples):
            return ddf
        steps = ddf.new_tensor(ddf.shape[2:]) - 1
        fixed, moving, width = (x.to(ddf) * steps for x in (self.fixed, self.moving, self.width))
        samples = self.samples.to(ddf.device)
        scaled = fixed / width
        kernel = torch.exp(-0.5 * torch.cdist(scaled, scaled).square()) * (samples[:, None] == samples)
        kernel += LOOSE * torch.eye(len(samples)).to(kernel)
        own = [samples == n for n in range(len(ddf))]
        for _ in range(CORRECTIONS):
            missing = moving - fixed - _at_points(ddf, fixed, samples)
            weights = torch.linalg.solve(kernel, missing.clamp(-width, width))  # a larger correction would fold
            parts = [_gaussians(fixed[mine], width, weights[mine], ddf.shape[2:]) for mine in own]
            correction = torch.stack(parts)
            ddf = warp(ddf, correction) + correction
        return ddf


def _at_points(ddf: torch.Tensor, points: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """Return the displacement at points in voxels, (N, d), each of its own sample of the batch; shape (N, d)."""
    spatial = [1] * (ddf.ndim - 3)
    grid = points.t().reshape(1, -1, len(points), *spatial)
    rows = torch.arange(len(points)).to(points).view(1, 1, -1, *spatial)
    offsets = torch.cat([grid[:, :1] - rows, grid[:, 1:]], 1)  # from the voxels of a line along the first axis
    found = warp(ddf, offsets.expand(len(ddf), -1, *offsets.shape[2:])).flatten(2)
    return found[samples, :, torch.arange(len(points))]


def _gaussians(centers: torch.Tensor, width: torch.Tensor, weights: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Sum Gaussian kernels of height 1 times their weights, both (N, d), on a grid; shape (d, *size)."""
    lines = [
        torch.exp(-0.5 * ((torch.arange(extent).to(centers) - centers[:, axis, None]) / width[axis]).square())
        for axis, extent in enumerate(size)
    ]
    others = lines[1] if len(lines) == 2 else (lines[1][:, :, None] * lines[2][:, None]).flatten(1)
    return ((weights.t()[:, :, None] * lines[0]).transpose(1, 2) @ others).view(-1, *size)


@dataclass(frozen=True)
class GuidanceLayout:
    """The channels of a network's input behind the moving and the fixed image, in this order, and the landmarks.

    Args:
        masks: whether there are two masks, moving and fixed, from 0 to 1: what lies outside does not drive the steps.
        contrasts: number of further images of the moving and then of the fixed subject, in [0, 1], which are compared
            like the first ones.
        labels: number of labels of the moving and then of the fixed subject: distances from their borders, clipped and
            scaled to [0, 1].
        landmarks: pairs of points, which have no channels.
    """

    masks: bool = False
    contrasts: int = 0
    labels: int = 0
    landmarks: Landmarks | None = None

    def split(self, image: torch.Tensor) -> tuple[torch.Tensor, Guidance]:
        """Split an input of the network, shape (B, C, *spatial), into both images, (B, 2, *spatial), and the rest."""
        pair, *parts = image.split([2, 2 * self.masks, 2 * self.contrasts, 2 * self.labels], 1)
        masks, contrasts, labels = (part if part.shape[1] else None for part in parts)
        return pair, Guidance(masks, contrasts, labels, self.landmarks)

    def exchange(self, image: torch.Tensor) -> tuple[torch.Tensor, GuidanceLayout]:
        """Exchange the moving and the fixed side of an input of the network, shape (C, *spatial), and of the layout."""
        widths = [1, int(self.masks), self.contrasts, self.labels]
        sides = image.split([width for width in widths for _ in range(2)])
        known = self.landmarks and replace(self.landmarks, fixed=self.landmarks.moving, moving=self.landmarks.fixed)
        return torch.cat([sides[n ^ 1] for n in range(len(sides))]), replace(self, landmarks=known)

    def select(self, first: int, count: int) -> GuidanceLayout:
        """Return the layout of some samples of a batch."""
        return replace(self, landmarks=self.landmarks and self.landmarks.select(first, count))


@dataclass(frozen=True)
class Guidance:
    """The channels of :class:`GuidanceLayout` on one grid, each (B, C, *spatial) or None, and the landmarks."""

    masks: torch.Tensor | None = None
    contrasts: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    landmarks: Landmarks | None = None

    def on_grid(self, size: Sequence[int], similarity: Similarity) -> Guidance:
        """Return the guidance on a level of the pyramid, with the contrasts as the similarity describes them."""
        parts = (self.masks, self.contrasts, self.labels)
        masks, contrasts, labels = (None if part is None else resize(part, size) for part in parts)
        if contrasts is not None:
            contrasts = torch.cat([similarity.describe(image) for image in contrasts.split(1, 1)], 1)
        return Guidance(masks, contrasts, labels, self.landmarks)

    def weight(self, ddf: torch.Tensor) -> torch.Tensor | None:
        """Return how much each voxel counts under a displacement, shape (B, 1, *spatial); None without masks."""
        if self.masks is None:
            return None
        moving, fixed = self.masks.split(1, 1)
        return fixed * warp(moving, ddf)

    def terms(self, ddf: torch.Tensor, similarity: Similarity) -> Iterator[Term]:
        """Yield the further contrasts, which drive a step together with the images."""
        return _terms(self.contrasts, ddf, similarity, similarity.channels(ddf.shape[1]))

    def label_terms(self, ddf: torch.Tensor) -> Iterator[Term]:
        """Yield the labels, some of them at a time."""
        return _terms(self.labels, ddf, SSD(), AT_ONCE)

    def correct(self, ddf: torch.Tensor) -> torch.Tensor:
        """Return the displacement that also brings the landmarks together."""
        return ddf if self.landmarks is None else self.landmarks.correct(ddf)


def _terms(part: torch.Tensor | None, ddf: torch.Tensor, similarity: Similarity, at_once: int) -> Iterator[Term]:
    """Yield the terms of channels, moving then fixed, one after the other to save memory."""
    if part is not None:
        moving, fixed = part.chunk(2, 1)
        for of_moving, of_fixed in zip(moving.split(at_once, 1), fixed.split(at_once, 1)):
            yield Term(similarity, of_fixed, *warp_with_gradient(of_moving, ddf))
