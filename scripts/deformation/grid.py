"""Voxel grids in world space: points, affine maps between grids, and sampling at points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

__all__ = ["apply_affine", "lattice", "sample", "to_native_ddf"]


def lattice(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The voxel coordinates of a grid, shape (d, *shape)."""
    return torch.stack(torch.meshgrid(*[torch.arange(n, dtype=dtype) for n in shape], indexing="ij"))


def apply_affine(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Map points (3, ...) by a homogeneous 4x4 matrix."""
    matrix = matrix.to(points.dtype)
    return torch.tensordot(matrix[:3, :3], points, dims=1) + matrix[:3, 3].view(3, *[1] * (points.ndim - 1))


def sample(
    volume: torch.Tensor, points: torch.Tensor, mode: str = "bilinear", fill: float | None = None
) -> torch.Tensor:
    """Sample a volume at points given in its voxels.

    Args:
        volume: shape (C, *spatial), floating point, 2D or 3D.
        points: shape (d, ...), in voxels of ``volume``.
        mode: ``bilinear`` (trilinear in 3D) or ``nearest``.
        fill: value of points more than half a voxel outside the volume, as ITK draws that border; None extends the
            values of the border.

    Returns:
        the values, shape (C, ...).
    """
    dims = points.shape[0]
    size = volume.shape[1:]
    extent = torch.tensor([max(n - 1, 1) for n in size], dtype=points.dtype).view(dims, *[1] * (points.ndim - 1))
    # grid_sample wants the last axis first, from -1 to 1
    normalized = (points * (2 / extent) - 1).flip(0).flatten(1).t().reshape(1, -1, *[1] * (dims - 1), dims)
    values = F.grid_sample(volume[None], normalized, mode=mode, padding_mode="border", align_corners=True)
    values = values.reshape(volume.shape[0], *points.shape[1:])
    if fill is None:
        return values
    last = torch.tensor(size, dtype=points.dtype).view_as(extent) - 0.5
    inside = ((points >= -0.5) & (points <= last)).all(0)
    return torch.where(inside, values, values.new_tensor(fill))


def to_native_ddf(
    ddf: torch.Tensor,
    affine: torch.Tensor,
    native_affine: torch.Tensor,
    native_shape: Sequence[int],
    alignment: torch.Tensor,
) -> torch.Tensor:
    """Carry a displacement from the grid of the network to the fixed image's own grid.

    Outside the field of view of the network the displacement of its border is extended, which neither tears nor folds.

    Args:
        ddf: shape (3, *spatial), in voxels of the network's grid.
        affine: voxel to world of the network's grid, 4x4.
        native_affine: voxel to world of the native grid, 4x4.
        native_shape: three sizes.
        alignment: 4x4 map from the fixed to the moving world that was applied before the network; the result holds it.

    Returns:
        the ddf in voxels of the native grid, shape (3, *native_shape), float32.
    """
    affine, native_affine, alignment = affine.double(), native_affine.double(), alignment.double()
    native_to_network = torch.linalg.solve(affine, native_affine)
    points = lattice(native_shape)
    values = sample(ddf.float(), apply_affine(native_to_network, points))
    linear = torch.linalg.inv(native_to_network)[:3, :3].float()
    native = torch.tensordot(linear, values, dims=1)
    if torch.equal(alignment, torch.eye(4, dtype=alignment.dtype)):
        return native
    in_voxels = torch.linalg.solve(native_affine, alignment @ native_affine)
    return apply_affine(in_voxels, points + native) - points
