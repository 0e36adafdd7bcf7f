"""The grid on which the network sees a pair: where it lies in the fixed image, and what it leaves out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing, SpatialCrop, SpatialPad, SpatialResample, Transform
from monai.utils import fall_back_tuple

from ..deformation.grid import apply_affine, lattice, sample_grid, translation
from ..support.notices import warn
from ..support.slabs import share, slabs

__all__ = ["ResampleMovingd", "ResampleToGridd", "find_foreground"]

NEGLIGIBLE = 1e-3  # share of the foreground that may lie outside of the grid without a word
FAR = 0.05  # of the range of intensities: surely no background
MIN_BACKGROUND = 0.25  # share of a volume with an object in it that is background
MAX_BORDER = 0.1  # share of the border of such a volume that is not
FINE = 0.625  # largest side of a voxel, as a fraction of the spacing of the grid, for which a finer grid shows more


class ResampleToGridd(Transform):
    """Resample ``fixed`` to the grid of the network; where the grid is larger, the border of the image is repeated.

    The grid lies in the middle of the image. Only where it would cut a 3D object that stands free in its background,
    such as a head low in its volume, it is centred on that object. A warning says what still lies outside.

    A fine grid has a further voxel between every two of the grid, so that its every second voxel is one of the grid.

    Args:
        spatial_dims: 2 or 3, as the network. The grid of a stack always lies in its middle.
        spacing: voxel size of the grid, in mm; -1 keeps that of the image.
        spatial_size: size of the grid, in voxels; -1 keeps that of the image.
        fine: take the fine grid of a volume where the voxels of both images are hardly larger than half the spacing,
            1.25 mm for a grid of 2 mm; the data then has ``fine``, which is true.
    """

    def __init__(
        self, spatial_dims: int, spacing: Sequence[float], spatial_size: Sequence[int], fine: bool = False
    ) -> None:
        self.spatial_dims = spatial_dims
        self.spacing = spacing
        self.spatial_size = spatial_size
        self.fine = fine and spatial_dims == 3

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = data["fixed"]
        whole = cast(
            MetaTensor, Spacing(self.spacing)(image, lazy=True)
        )  # the grid alone: the whole image may be huge on it
        shape, affine = [int(n) for n in whole.peek_pending_shape()], whole.peek_pending_affine().double()
        size = [min(n, wanted) for n, wanted in zip(shape, fall_back_tuple(self.spatial_size, shape))]
        start = [n // 2 - m // 2 for n, m in zip(shape, size)]
        if self.spatial_dims == 3 and size != shape:
            start = _place(image, affine, shape, start, size)
        pad = SpatialPad(self.spatial_size, mode="edge")
        fixed = cast(MetaTensor, pad(_crop(image, affine, shape, start, size)))
        if not (self.fine and _largest_voxel(data) <= FINE * min(self.spacing)):
            return {**data, "fixed": fixed}
        between = fixed.affine.double() @ torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))
        return {**data, "fixed": _resample(image, between, [2 * n - 1 for n in fixed.shape[1:]]), "fine": True}


def _largest_voxel(data: Mapping[Hashable, Any]) -> float:
    """The largest side of a voxel of either image, in mm, before the alignment of the moving one."""
    moving = data["moving"].affine.double()
    affines = data["fixed"].affine.double(), data["alignment"] @ moving if "alignment" in data else moving
    return max(float(affine[:3, :3].norm(dim=0).max()) for affine in affines)


def find_foreground(image: torch.Tensor) -> torch.Tensor | None:
    """Find an object that stands free in its background.

    The background has the median value of the border of the volume; all that is far from that value is foreground.

    Args:
        image: shape (X, Y, Z).

    Returns:
        where the object is, boolean, of the same shape; None where there is no such object: the background is less than
        a quarter of the volume, or less than nine tenths of its border.
    """
    faces = [(axis, end) for axis in range(3) for end in (0, -1)]
    level = torch.cat([image.select(axis, end).flatten() for axis, end in faces]).median()
    distance = (image - level).abs()
    foreground = distance > FAR * float(np.percentile(distance.numpy(), 99.5))
    border = share(torch.cat([foreground.select(axis, end).flatten() for axis, end in faces]))
    return foreground if 0 < share(foreground) <= 1 - MIN_BACKGROUND and border <= MAX_BORDER else None


class ResampleMovingd(Transform):
    """Resample ``moving`` to the grid of ``fixed``; beyond its border, its values are repeated."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        fixed = data["fixed"]
        return {**data, "moving": _resample(data["moving"], fixed.affine.double(), fixed.shape[1:])}


def _crop(
    image: MetaTensor, affine: torch.Tensor, shape: Sequence[int], start: Sequence[int], size: Sequence[int]
) -> torch.Tensor:
    """Resample an image to a window of the grid of this affine and shape."""
    if _is_grid(image, affine, shape):
        return SpatialCrop(roi_slices=[slice(first, first + n) for first, n in zip(start, size)])(image)
    return _resample(image, _shifted(affine, start), size)


def _resample(image: MetaTensor, affine: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resample an image to a grid; a large one slab by slab, as MONAI takes 100 bytes for each voxel."""
    if len(slabs(shape)) == 1 or _is_grid(image, affine, shape):
        return SpatialResample()(image, dst_affine=affine, spatial_size=shape)
    to_image = torch.linalg.solve(image.affine.double(), affine)

    def locate(rows: slice) -> torch.Tensor:
        return apply_affine(to_image, lattice(shape, torch.float64, rows)).float()

    result = MetaTensor(sample_grid(image.as_tensor().float(), shape, locate), meta=deepcopy(image.meta))
    result.affine = affine
    return result


def _is_grid(image: MetaTensor, affine: torch.Tensor, shape: Sequence[int]) -> bool:
    """Whether an image has this grid."""
    return image.shape[1:] == tuple(shape) and torch.allclose(affine, image.affine.double(), rtol=0, atol=1e-6)


def _shifted(affine: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
    """The affine of a grid that begins at this voxel of another one."""
    return affine @ translation(start)


def _place(
    image: MetaTensor, affine: torch.Tensor, shape: Sequence[int], middle: Sequence[int], size: Sequence[int]
) -> list[int]:
    """Find the window of a grid on which the network sees an object, see :class:`ResampleToGridd`.

    Args:
        image: shape (1, X, Y, Z), whose axes and first voxel are those of the grid, too.
        affine: voxel to world of the grid.
        shape: the three sizes of the grid.
        middle: first voxels of the window in the middle of the grid.
        size: size of the window, in voxels of the grid.

    Returns:
        the first voxels of the window.
    """
    foreground = find_foreground(image.as_tensor()[0].cpu())
    if foreground is None:
        return list(middle)
    start, inside, cut = list(middle), foreground, 0.0
    zoom = torch.linalg.solve(affine, image.affine.double())[:3, :3].diagonal().numpy()
    for axis in range(3):
        profile = foreground.numpy().sum(tuple(other for other in range(3) if other != axis))  # faster than torch
        position = np.arange(len(profile)) * zoom[axis]
        start[axis] = _first_voxel(profile, position, shape[axis], middle[axis], size[axis])
        beyond = np.maximum(start[axis] - 0.5 - position, position - (start[axis] + size[axis] - 0.5))
        inside = inside.index_select(axis, torch.from_numpy(np.flatnonzero(beyond <= 0)))
        cut = max(cut, beyond[profile > 0].max() / zoom[axis] * float(image.pixdim[axis]))
    outside = 1 - int(inside.count_nonzero()) / int(foreground.count_nonzero())
    if outside > NEGLIGIBLE:
        view = " x ".join(f"{n * float(s):.0f}" for n, s in zip(size, affine[:3, :3].norm(dim=0)))
        warn(
            f"fixed: {image.meta['filename_or_obj']}: {outside:.1%} of the foreground, up to {cut:.0f} mm, lie outside "
            f"of the network's field of view of {view} mm."
        )
    return start


def _first_voxel(profile: np.ndarray, position: np.ndarray, length: int, middle: int, size: int) -> int:
    """Place a window on one axis: in the middle if that cuts nothing, else so that most of the foreground is inside.

    Args:
        profile: foreground of each plane of the image.
        position: places of these planes, in voxels of the grid.
        length: number of voxels of the grid.
        middle: first voxel of the window in the middle.
        size: size of the window, in voxels of the grid.
    """
    starts = np.arange(length - size + 1)
    total = np.concatenate([[0], profile.cumsum()])
    first, last = (np.searchsorted(position, starts + edge - 0.5) for edge in (0, size))
    held = total[last] - total[first]
    if held[middle] >= (1 - NEGLIGIBLE) * total[-1]:
        return middle
    best = np.flatnonzero(held >= held.max() - NEGLIGIBLE * total[-1])
    return int(best[len(best) // 2])
