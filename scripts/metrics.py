"""Measures of one registered pair that MONAI does not give as needed; folding is in ``deformation.jacobian``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice
from monai.metrics.utils import get_mask_edges, get_surface_distance

__all__ = [
    "common_classes",
    "dice_per_class",
    "end_point_error",
    "flatten",
    "ncc",
    "rescale",
    "rmse",
    "surface_distances",
]

NAN = float("nan")
SURFACE_MEASURES = ("hausdorff", "hausdorff95", "surface_distance")


def common_classes(fixed: torch.Tensor, moving: torch.Tensor) -> tuple[list[int], dict[str, str]]:
    """The classes that count, which are those in both *input* labels, and the others, with the label that holds them.

    A class that counts and vanished from the result then has Dice 0; taking the classes from the result would miss
    it. 0 is the background, and no class.
    """
    in_fixed, in_moving = ({int(value) for value in label.unique()} - {0} for label in (fixed, moving))
    others = {str(c): f"only in label_{'fixed' if c in in_fixed else 'moving'}" for c in sorted(in_fixed ^ in_moving)}
    return sorted(in_fixed & in_moving), others


def dice_per_class(warped: torch.Tensor, fixed: torch.Tensor, classes: Sequence[int]) -> dict[str, float]:
    """Dice of each class of two label maps of one shape, and ``mean`` over the classes; NaN when there are none."""
    if not classes:
        return {"mean": NAN}
    # the common background, most of a volume, changes nothing and costs time
    somewhere = (warped != 0) | (fixed != 0)
    warped, fixed = warped[somewhere], fixed[somewhere]
    values = torch.cat([compute_dice((warped == c)[None, None], (fixed == c)[None, None])[0] for c in classes])
    return {**{str(c): value.item() for c, value in zip(classes, values)}, "mean": values.mean().item()}


def surface_distances(
    warped: torch.Tensor, fixed: torch.Tensor, classes: Sequence[int], spacing: Sequence[float], by_slice: bool = False
) -> dict[str, dict[str, float]]:
    """Distances between the surfaces of each class in two label maps, in mm, and their means.

    The surface is made of the centres of those voxels of a class that have a face neighbour outside it, or lie at the
    border of the grid. Of the distances from each surface voxel to the nearest one of the other surface,
    ``hausdorff`` is the largest, ``hausdorff95`` the larger one of both directions' 95th percentiles, and
    ``surface_distance`` the mean over both directions together (average symmetric surface distance).

    Args:
        warped: the moving label on the fixed grid, shape (X, Y, Z).
        fixed: the fixed label, of the same shape.
        classes: what to measure.
        spacing: of the grid, in mm along each axis of the tensors.
        by_slice: measure in the slices of the last axis, and take the mean over those that hold the class in both.

    Returns:
        by measure, the value of each class, and ``mean`` over the classes where it is defined. It is NaN for a class
        that is nowhere in both, as it vanished or its slices do not meet.
    """
    a, b = _crop(warped.numpy(), fixed.numpy())
    planes = [(a[..., k], b[..., k]) for k in range(a.shape[-1])] if by_slice else [(a, b)]
    step = np.asarray(spacing, dtype=float)[: 2 if by_slice else 3]
    measured = {str(c): _surface_measures([(p == c, q == c) for p, q in planes], step) for c in classes}
    result = {}
    for index, measure in enumerate(SURFACE_MEASURES):
        values = {c: float(found[index]) for c, found in measured.items()}
        known = [value for value in values.values() if not np.isnan(value)]
        result[measure] = {**values, "mean": float(np.mean(known)) if known else NAN}
    return result


def ncc(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor) -> float:
    """Pearson correlation of two images where the mask is true."""
    a, b = first[mask].double().numpy(), second[mask].double().numpy()
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return NAN
    return float(np.corrcoef(a, b)[0, 1])


def rmse(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor) -> float:
    """Root mean square of the difference of two images where the mask is true; NaN where it is empty."""
    return (first[mask].double() - second[mask].double()).square().mean().sqrt().item()


def rescale(image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """To [0, 1] between the percentiles 1 and 99 of a reference, clipped: what the preprocessing does to both images.

    Args:
        image: any shape.
        reference: the image as read, of which ``image`` was resampled.
    """
    low, high = np.percentile(reference.numpy(), (1, 99))
    return ((image - low) / max(high - low, 1e-9)).clamp(0, 1)


def end_point_error(
    ddf: torch.Tensor, truth: torch.Tensor, affine: torch.Tensor, mask: torch.Tensor
) -> dict[str, float]:
    """Mean length of the difference of two displacements where the mask is true; NaN where it is empty.

    Args:
        ddf: shape (3, X, Y, Z), in voxels.
        truth: what it should be, likewise.
        affine: voxel to world in mm, 4x4.
        mask: boolean, shape (X, Y, Z).

    Returns:
        ``mean_voxel`` and ``mean_mm``.
    """
    error = (ddf - truth)[:, mask].double()
    millimetres = affine[:3, :3].double() @ error
    return {"mean_voxel": error.norm(dim=0).mean().item(), "mean_mm": millimetres.norm(dim=0).mean().item()}


def flatten(metrics: Mapping[str, Any], label_names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Nested dictionaries as one, with keys as ``dice.after.LV``; a class without a name keeps its number."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        name = (label_names or {}).get(key, key)
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": item for inner, item in flatten(value, label_names).items()}
        else:
            flat[name] = value
    return flat


def _crop(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays within the box of what is not 0 in either."""
    somewhere = (first != 0) | (second != 0)
    axes = range(somewhere.ndim)
    found = [np.flatnonzero(somewhere.any(tuple(other for other in axes if other != axis))) for axis in axes]
    box = tuple(slice(index[0], index[-1] + 1) if len(index) else slice(0) for index in found)
    return first[box], second[box]


def _surface_measures(masks: Sequence[tuple[np.ndarray, np.ndarray]], spacing: np.ndarray) -> np.ndarray:
    """The three measures, as means over those pairs of masks that both hold something; else NaN."""
    found = []
    for first, second in masks:
        if first.any() and second.any():
            edges = get_mask_edges(*_crop(first, second), crop=False)
            ways = [np.asarray(get_surface_distance(a, b, spacing=spacing)) for a, b in (edges, edges[::-1])]
            largest, percentile = (max(measure(way) for way in ways) for measure in (np.max, _percentile95))
            found.append((largest, percentile, np.concatenate(ways).mean()))
    return np.mean(found, axis=0) if found else np.full(len(SURFACE_MEASURES), NAN)


def _percentile95(values: np.ndarray) -> float:
    return float(np.percentile(values, 95))
