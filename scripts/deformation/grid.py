"""Voxel grids in world space: points, affine maps between grids, and sampling at points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor

from ..networks.kernels.sampling import interpolate
from ..support.slabs import slabs

__all__ = [
    "apply_affine",
    "as_volume",
    "by_image",
    "fade",
    "lattice",
    "length",
    "lengths_mm",
    "sample",
    "sample_grid",
    "to_native_ddf",
    "translation",
]

FADE_MM = 30.0


def lattice(shape: Sequence[int], dtype: torch.dtype = torch.float32, rows: slice = slice(None)) -> torch.Tensor:
    """Return the voxel coordinates of a grid, shape (d, *shape), or of these rows of its first axis."""
    first, *others = [torch.arange(n, dtype=dtype) for n in shape]
    return torch.stack(torch.meshgrid(first[rows], *others, indexing="ij"))


def by_image(field: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    """A field (C, X, Y, Z) as the batch that a network saw: one volume, or one image per slice without the component
    through the planes."""
    plain = convert_to_tensor(field, track_meta=False)
    return plain[None] if spatial_dims == 3 else plain[:2].movedim(-1, 0)


def as_volume(batch: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    """The way back from :func:`by_image`: a batch of one volume, or of the slices of a stack, as (..., X, Y, Z)."""
    return batch[0] if spatial_dims == 3 else batch.movedim(0, -1)


def apply_affine(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Map points, shape (3, ...), by a homogeneous matrix, shape (4, 4)."""
    matrix = matrix.to(points.dtype)
    return torch.tensordot(matrix[:3, :3], points, dims=1) + matrix[:3, 3].view(3, *[1] * (points.ndim - 1))


def translation(offset: Sequence[float]) -> torch.Tensor:
    """The homogeneous matrix, 4x4 and float64, that adds an offset to three coordinates."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor(offset, dtype=torch.float64)
    return matrix


def length(vectors: torch.Tensor) -> torch.Tensor:
    """Lengths, shape (...), of vectors (d, ...); several times faster than ``norm(dim=0)``."""
    return vectors.square().sum(0).sqrt()


def lengths_mm(vectors: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Lengths in millimetres, shape (...), of vectors (3, ...) in voxels of a grid with this affine, 4x4."""
    return length(torch.tensordot(affine[:3, :3].to(vectors.dtype), vectors, dims=1))


def sample(
    volume: torch.Tensor, points: torch.Tensor, mode: str = "bilinear", fill: float | None = None
) -> torch.Tensor:
    """Sample a volume at points in its voxel coordinates.

    Args:
        volume: shape (C, *spatial), 2D or 3D; whole numbers, of whatever size, stay what they are.
        points: shape (d, ...), in voxels of ``volume``.
        mode: ``bilinear`` (trilinear in 3D) or ``nearest``.
        fill: value of points that lie more than half a voxel outside the volume, which is ITK's border; None extends
            the values of the border.

    Returns:
        the values, shape (C, ...), in the data type of the volume.
    """
    return sample_grid(volume, points.shape[1:], lambda rows: points[:, rows], mode, fill)


def sample_grid(
    volume: torch.Tensor,
    shape: Sequence[int],
    locate: Callable[[slice], torch.Tensor],
    mode: str = "bilinear",
    fill: float | None = None,
) -> torch.Tensor:
    """:func:`sample` for the points of a grid, slab by slab.

    Args:
        volume: shape (C, *spatial).
        shape: of the points.
        locate: gives the points of some rows of the grid, shape (d, rows, ...), in voxels of ``volume``.
        mode: as there.
        fill: as there.

    Returns:
        the values, shape (C, *shape), in the data type of the volume.
    """
    ids, values = (None, volume) if volume.is_floating_point() else _as_floats(volume)
    outside = -1.0 if ids is not None and fill is not None else fill
    result = volume.new_empty(volume.shape[0], *shape)
    for rows in slabs(shape):
        found = _sample(values, locate(rows), mode if ids is None else "nearest", outside)
        if ids is not None:
            inside = ids[found.clamp(min=0).long()]
            found = inside if fill is None else torch.where(found < 0, inside.new_tensor(int(fill)), inside)
        result[:, rows] = found
    return result


def _sample(volume: torch.Tensor, points: torch.Tensor, mode: str, fill: float | None) -> torch.Tensor:
    """:func:`sample` of a volume of floating-point numbers, in one piece."""
    values = interpolate(volume, points) if mode == "bilinear" else _nearest(volume, points)
    if fill is None:
        return values
    last = torch.tensor(volume.shape[1:], dtype=points.dtype).view(-1, *[1] * (points.ndim - 1)) - 0.5
    inside = ((points >= -0.5) & (points <= last)).all(0)
    return torch.where(inside, values, values.new_tensor(fill))


def _nearest(volume: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    dims = points.shape[0]
    extent = torch.tensor([max(n - 1, 1) for n in volume.shape[1:]], dtype=points.dtype)
    # grid_sample takes the last axis first, from -1 to 1
    normalized = (points * (2 / extent.view(dims, *[1] * (points.ndim - 1))) - 1).flip(0).flatten(1).t()
    # on a CPU, it runs one thread per sample of the batch: distribute the points over as many samples
    count, threads = len(normalized), torch.get_num_threads()
    if count % threads:
        normalized = F.pad(normalized, (0, 0, 0, -count % threads))
    normalized = normalized.reshape(threads, -1, *[1] * (dims - 1), dims)
    batch = volume.expand(threads, *volume.shape)
    values = F.grid_sample(batch, normalized, mode="nearest", padding_mode="border", align_corners=True)
    return values.movedim(1, 0).flatten(1)[:, :count].reshape(volume.shape[0], *points.shape[1:])


def _as_floats(volume: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Whole numbers as float32: None and themselves, or where it cannot hold them, a list of ids and places in it."""
    fits = volume.numel() == 0 or max(-int(volume.min()), int(volume.max())) < 2**24
    ids, places = (None, volume) if fits else volume.unique(return_inverse=True)
    return ids, places.float()


def to_native_ddf(
    ddf: torch.Tensor,
    affine: torch.Tensor,
    native_affine: torch.Tensor,
    native_shape: Sequence[int],
    before: Callable[[torch.Tensor], torch.Tensor] | None,
) -> torch.Tensor:
    """Carry a displacement from the grid of the network to the grid of the fixed image.

    Outside the network's field of view, the displacement continues from the border and fades linearly to zero (so that
    only this map is left) over ``FADE_MM``, which is slow enough not to fold.

    Args:
        ddf: shape (3, *spatial), in voxels of the network's grid.
        affine: voxel to world of the network's grid, shape (4, 4).
        native_affine: voxel to world of the native grid, shape (4, 4).
        native_shape: the three sizes of the native grid.
        before: the map of points, (3, N) in RAS millimetres, from the fixed to the moving world that was applied before
            the network; the result includes it. None is the identity.

    Returns:
        the ddf in voxels of the native grid, shape (3, *native_shape), float32.
    """
    affine, native_affine = affine.double(), native_affine.double()
    native_to_network = torch.linalg.solve(affine, native_affine)
    linear = torch.linalg.inv(native_to_network)[:3, :3].float()
    to_voxels = torch.linalg.inv(native_affine)
    native = torch.empty(3, *native_shape)
    for rows in slabs(native_shape):
        points = lattice(native_shape, rows=rows)
        in_network = apply_affine(native_to_network, points)
        values = sample(ddf.float(), in_network) * fade(in_network, ddf.shape[1:], affine)
        native[:, rows] = torch.tensordot(linear, values, dims=1)
        if before is not None:
            moved = before(apply_affine(native_affine, (points + native[:, rows]).double()).flatten(1))
            native[:, rows] = (apply_affine(to_voxels, moved).view_as(points) - points).float()
    return native


def fade(points: torch.Tensor, size: Sequence[int], affine: torch.Tensor) -> torch.Tensor:
    """Return 1 inside a grid, falling to 0 at ``FADE_MM`` from its outermost voxels; points in voxels, (3, ...)."""
    last = torch.tensor(size, dtype=points.dtype).view(3, *[1] * (points.ndim - 1)) - 1
    outside = points - points.clamp(min=torch.zeros_like(last), max=last)
    return (1 - lengths_mm(outside, affine) / FADE_MM).clamp(min=0)
