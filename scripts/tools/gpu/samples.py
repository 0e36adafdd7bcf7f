"""Random training samples, made in batches on the device: motion in one interpolation, synthesis, contrast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from ...images.intensities import PERCENTILES
from ...images.synthesis import ANY_BRIGHTNESS, TISSUES, tissue_mean
from ...networks.kernels.filters import gaussian
from .tasks import Variation

__all__ = ["Sampler", "paint", "scale_to_percentiles"]


class Sampler:
    """Draws the pairs of a training step from packed arrays.

    Args:
        arrays: ``image`` (absent if images are painted) and ``label``, shape (items, frames, *spatial), uint8, and
            ``label_ids``.
        variation: the random variation of the samples.
        crop_size: size of a sample in voxels, from the middle of the grid; -1 keeps an axis.
        device: the device that keeps the arrays.
    """

    def __init__(
        self,
        arrays: Mapping[str, torch.Tensor],
        variation: Variation,
        crop_size: Sequence[int],
        device: torch.device,
    ) -> None:
        self.variation = variation
        self.crop_size = crop_size
        self.image = arrays["image"].to(device) if "image" in arrays else None
        self.label = arrays["label"].to(device)
        self.ids = arrays["label_ids"].to(device)
        self.device = device

    def draw(self, generator: torch.Generator, batch_size: int) -> dict[str, torch.Tensor]:
        """Draw a batch: ``image`` (B, 2, *spatial), moving and fixed, in [0, 1], ``label_moving``, ``label_fixed``.

        Args:
            generator: a generator on the CPU, so that all devices draw the same motion.
            batch_size: B.
        """
        items = torch.randint(len(self.label), (2, batch_size), generator=generator)
        if self.label.shape[1] == 2:  # the frames of one subject
            chosen = [(items[0], frame) for frame in (1, 0)]
        else:
            others = (items[0] + 1 + items[1] % (len(self.label) - 1)) % len(self.label)
            chosen = [(others, 0), (items[0], 0)]
        grid = movement(self.variation, self.label.shape[2:], batch_size, generator, self.device)
        image, ids = self._read(chosen, generator, grid)
        return _pairs(scale_to_percentiles(contrast(image, self.variation, generator)), ids)

    def plain(self, items: torch.Tensor, others: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the pairs of these items without variation, for validation."""
        frame = self.label.shape[1] - 1
        image, ids = self._read([(others, frame), (items, 0)], torch.Generator().manual_seed(int(items[0])))
        return _pairs(scale_to_percentiles(image), ids)

    def _read(
        self, chosen: Sequence[tuple[torch.Tensor, int]], generator: torch.Generator, grid: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and label ids, (2B, 1, *spatial) each, of these items and frames, moved where there is a grid.

        Without a grid, images that have to be painted are T1-like.
        """

        def read(arrays: torch.Tensor, mode: str, one: float) -> torch.Tensor:
            frames = torch.cat([arrays[index.to(self.device), frame] for index, frame in chosen])
            volume = frames.unsqueeze(1).float() / one
            return self._crop(volume if grid is None else sample(volume, grid, mode))

        labels = read(self.label, "nearest", 1).long()
        if self.image is None:
            return paint(labels, self.ids, generator, t1=grid is None), self.ids[
                majority(labels.to(torch.uint8)).long()
            ]
        return read(self.image, "bilinear", 255), self.ids[labels]

    def _crop(self, volume: torch.Tensor) -> torch.Tensor:
        for axis, (have, want) in enumerate(zip(volume.shape[2:], self.crop_size), start=2):
            volume = volume.narrow(axis, (have - want) // 2, want) if want > 0 else volume
        return volume


def _pairs(image: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch of the moving images and labels, which come first, and the fixed ones."""
    moving, fixed = ids.float().chunk(2)
    return {"image": torch.cat(image.chunk(2), 1), "label_moving": moving, "label_fixed": fixed}


def movement(
    variation: Variation, size: torch.Size, batch_size: int, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Draw the sampling points of moving and fixed images, shape (2B, *spatial, d), in the form of ``grid_sample``."""
    dims, both = len(size), 2 * batch_size
    common = _affine(generator, batch_size, dims, variation.rotation, variation.scale, variation.shift)
    flips = torch.ones(batch_size, dims)
    for axis in variation.flips:
        flips[:, axis] -= 2 * (torch.rand(batch_size, generator=generator) < 0.5)
    common = torch.diag_embed(torch.cat([flips, torch.ones(batch_size, 1)], 1)) @ common
    angle, shift = variation.motion_rotation, variation.motion_shift
    # most pairs move little, a few as far as allowed
    amount = torch.rand(batch_size, 1, generator=generator).square()
    own = _affine(generator, batch_size, dims, angle, variation.scale / 2, shift, amount)
    matrix = torch.cat([common @ own, common]).to(device)
    axes = [torch.arange(n, device=device) - (n - 1) / 2 for n in size]
    lattice = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    points = torch.einsum("bij,j...->bi...", matrix[:, :dims, :dims], lattice)
    points = points + matrix[:, :dims, dims].reshape(both, dims, *[1] * dims)
    if variation.elastic:
        points = points + smooth_field(generator, batch_size, size, variation.elastic, device).repeat(
            2, *[1] * (dims + 1)
        )
    if variation.motion:
        moving = smooth_field(generator, batch_size, size, variation.motion, device)
        points = points + torch.cat([moving, torch.zeros_like(moving)])
    scale = torch.tensor([2 / (n - 1) for n in size], device=device).view(dims, *[1] * dims)
    return (points * scale).flip(1).movedim(1, -1)


def _affine(
    generator: torch.Generator,
    batch_size: int,
    dims: int,
    rotation: float,
    scale: float,
    shift: float,
    amount: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Draw random affine maps about the origin, shape (B, d + 1, d + 1)."""
    planes = [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]
    angles = amount * (2 * torch.rand(batch_size, len(planes), generator=generator) - 1) * math.radians(rotation)
    matrix = torch.eye(dims + 1).repeat(batch_size, 1, 1)
    for plane, (i, j) in enumerate(planes):
        turn = torch.eye(dims + 1).repeat(batch_size, 1, 1)
        cos, sin = angles[:, plane].cos(), angles[:, plane].sin()
        turn[:, i, i], turn[:, j, j], turn[:, i, j], turn[:, j, i] = cos, cos, -sin, sin
        matrix = matrix @ turn
    whole = 1 + scale * (2 * torch.rand(batch_size, 1, generator=generator) - 1)
    sizes = whole * (1 + scale / 3 * (2 * torch.rand(batch_size, dims, generator=generator) - 1))
    matrix[:, :dims, :dims] = matrix[:, :dims, :dims] * sizes.unsqueeze(1)
    matrix[:, :dims, dims] = amount * shift * (2 * torch.rand(batch_size, dims, generator=generator) - 1)
    return matrix


def smooth_field(
    generator: torch.Generator, batch_size: int, size: torch.Size, deviation: float, device: torch.device
) -> torch.Tensor:
    """Draw a smooth displacement in voxels, shape (B, d, *spatial), with control points every 16 to 20 voxels."""
    coarse = [max(3, n // 18) for n in size]
    noise = torch.randn(batch_size, len(size), *coarse, generator=generator)
    noise = noise * deviation * torch.rand(batch_size, *[1] * (len(size) + 1), generator=generator)
    mode = "bicubic" if len(size) == 2 else "trilinear"
    return F.interpolate(noise.to(device), size=tuple(size), mode=mode, align_corners=True)


def sample(volume: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    return F.grid_sample(volume, grid, mode=mode, padding_mode="border", align_corners=True)


def paint(labels: torch.Tensor, ids: torch.Tensor, generator: torch.Generator, t1: bool = False) -> torch.Tensor:
    """Paint images of half the size with random intensities for each tissue, blur and noise, 0 in the background.

    The method is SynthSeg's (Billot et al., Medical Image Analysis 86, 2023). Half of the images are T1-like, the
    others have a random contrast.

    Args:
        labels: positions in the list of ids, (B, 1, *spatial); 0 is the background.
        ids: FreeSurfer's.
        generator: random numbers, on the CPU.
        t1: make T1-like images only.
    """
    device = labels.device
    tables = [_tissue_values(ids.tolist(), generator, t1) for _ in labels]
    mean, deviation = (torch.stack(values).to(device) for values in zip(*tables))
    index = labels.flatten(1)
    noise = torch.randn(index.shape, device=device, generator=_on(device, generator))
    image = (mean.gather(1, index) + deviation.gather(1, index) * noise).view(labels.shape)
    image, inside = F.avg_pool3d(image, 2), F.avg_pool3d((labels > 0).float(), 2) > 0.5
    blurred = [gaussian(one[None], 0.1 + 0.6 * float(torch.rand(1, generator=generator))) for one in image]
    return torch.cat(blurred).clamp(min=0) * inside


def _tissue_values(ids: list[int], generator: torch.Generator, t1: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw mean and standard deviation of each id in one image."""
    known = {
        label: (place, brightness) for place, (labels, brightness) in enumerate(TISSUES.values()) for label in labels
    }
    draws = torch.rand(4, len(TISSUES) + 1, generator=generator)
    csf = 0.1 + 0.25 * float(draws[0, -1])
    grey = csf + (0.4 + 0.35 * float(draws[1, -1])) * (1 - csf)
    any_contrast = not t1 and float(draws[2, -1]) < 0.5
    mean, deviation = torch.zeros(2, len(ids))
    for position, label in enumerate(ids):
        if label == 0:
            continue
        place, (low, high) = known.get(label, (len(TISSUES), ANY_BRIGHTNESS))
        mean[position] = tissue_mean(low + (high - low) * float(draws[0, place]), csf, grey)
        if any_contrast:
            mean[position] = 0.05 + 0.95 * draws[1, place]
        deviation[position] = 0.01 + 0.07 * draws[2, place]
    return mean, deviation


def _on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """Make a generator of the device, seeded by the next number of another generator."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def majority(labels: torch.Tensor) -> torch.Tensor:
    """Return the most frequent label in each block of two voxels per side, shape (B, 1, *spatial / 2)."""
    corners = [labels[:, :, i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    best, result = torch.zeros_like(corners[0]), corners[0]
    for label in corners:
        votes = torch.stack([label == other for other in corners]).sum(0).to(best.dtype)
        result = torch.where(votes > best, label, result)
        best = torch.maximum(best, votes)
    return result


def contrast(image: torch.Tensor, variation: Variation, generator: torch.Generator) -> torch.Tensor:
    """Apply a random bias field, gamma and noise to each image, and sometimes a blur to the whole batch."""
    batch, device, dims = len(image), image.device, image.ndim - 2
    one = (batch, *[1] * (image.ndim - 1))
    coarse = torch.randn(batch, 1, *[3] * dims, generator=generator) * 0.2 * torch.rand(one, generator=generator)
    mode = "bicubic" if dims == 2 else "trilinear"
    bias = F.interpolate(coarse.to(device), size=tuple(image.shape[2:]), mode=mode, align_corners=True).exp()
    low, high = variation.gamma
    gamma = torch.exp(torch.empty(one).uniform_(math.log(low), math.log(high), generator=generator)).to(device)
    if torch.rand(1, generator=generator) < 0.3:
        image = gaussian(image, 0.3 + 0.6 * float(torch.rand(1, generator=generator)))
    image = scale_to_percentiles(image * bias)
    inside = image > 1e-6  # the background of a painted image stays 0
    image = image.clamp(min=1e-6).pow(gamma)
    strength = 0.04 * torch.rand(one, generator=generator).to(device)
    noise = torch.randn(image.shape, device=device, generator=_on(device, generator))
    return image + strength * noise * inside


def scale_to_percentiles(image: torch.Tensor, percentiles: tuple[float, float] = PERCENTILES) -> torch.Tensor:
    """Clip each image to two percentiles and scale it to [0, 1], as the preprocessing does."""
    values = image.flatten(1).sort(dim=1).values
    last = values.shape[1] - 1
    low, high = (values[:, round(percent / 100 * last)] for percent in percentiles)
    low, high = (value.view(-1, *[1] * (image.ndim - 1)) for value in (low, high))
    return ((image - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
