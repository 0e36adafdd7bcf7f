"""From the network's ddf to results on the fixed image's own grid: the postprocessing of ``inference.yaml``.

Keys that arrive: ``native_fixed``, ``native_moving`` and the labels as read, (1, X, Y, Z); ``fixed``, of which the
affine of the network's grid is taken; ``alignment``; ``ddf``, (3, X, Y, Z) in voxels of the network's grid.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform

from .deformation.grid import apply_affine, lattice, sample, to_native_ddf
from .deformation.inversion import invert_ddf
from .deformation.jacobian import folding_measures, jacobian_determinant, non_diffeomorphic_volume
from .metrics import dice_per_class, ncc, uncounted_classes

__all__ = ["InvertDdfd", "MeasurePaird", "ToNativeGridd", "WarpMovingd"]

Data = dict[Hashable, Any]


class ToNativeGridd(Transform):
    """Replace ``ddf`` by the displacement in voxels of the fixed image's own grid, (3, X, Y, Z), alignment included."""

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        native = data["native_fixed"]
        ddf = data["ddf"].detach().cpu()
        ddf = to_native_ddf(ddf, data["fixed"].affine, native.affine, native.shape[1:], data["alignment"])
        return {**data, "ddf": ddf}


class WarpMovingd(Transform):
    """Sample the moving image (linear) and label (nearest) once, from their own native files.

    Adds ``warped`` and ``resampled`` (with the alignment alone, for comparison) and, with a moving label,
    ``warped_label`` and ``resampled_label``; all (1, X, Y, Z) on the fixed grid, 0 outside the moving image.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        fixed, moving = data["native_fixed"], data["native_moving"]
        points = lattice(fixed.shape[1:])
        alignment = data["alignment"] @ fixed.affine.double()
        before = apply_affine(torch.linalg.solve(moving.affine.double(), alignment), points)
        after = apply_affine(torch.linalg.solve(moving.affine.double(), fixed.affine.double()), points + data["ddf"])
        result = dict(data)
        for name, where in (("resampled", before), ("warped", after)):
            result[name] = sample(moving.as_tensor(), where, fill=0)
            if "label_moving" in data:
                label = data["label_moving"].as_tensor()
                result[f"{name}_label"] = sample(label, where, mode="nearest", fill=0)
        return result


class InvertDdfd(Transform):
    """Add ``inverse_ddf``, (3, X, Y, Z) in voxels of the fixed grid, and ``inverse_residual_mm``, (X, Y, Z).

    Args:
        tolerance: residual, in voxels, at which the iteration rests.
    """

    def __init__(self, tolerance: float = 0.01) -> None:
        self.tolerance = tolerance

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        inverse, residual = invert_ddf(data["ddf"], self.tolerance)
        linear = data["native_fixed"].affine[:3, :3].float()
        return {
            **data,
            "inverse_ddf": inverse,
            "inverse_residual_mm": torch.tensordot(linear, residual, dims=1).norm(dim=0),
            "inverse_converged": residual.norm(dim=0) <= self.tolerance,
        }


class MeasurePaird(Transform):
    """Add ``jacobian`` (X, Y, Z) and ``metrics``, a dictionary ready for ``metrics.json``.

    The foreground, where the correlation and half of the folding are measured, is where the fixed image is above its
    minimum: the brain of a skull-stripped image, nearly everything of others.

    Args:
        spatial_dims: of the network: the field of a 2D one is measured slice by slice.
    """

    def __init__(self, spatial_dims: int) -> None:
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        fixed = data["native_fixed"].as_tensor()
        ddf = _as_batch(data["ddf"], self.spatial_dims)
        inside = fixed > fixed.min()
        foreground = _as_batch(inside, self.spatial_dims)[:, 0]
        determinant, volume = jacobian_determinant(ddf), non_diffeomorphic_volume(ddf)
        metrics: dict[str, Any] = {
            "ncc": {name: ncc(fixed, data[key], inside) for name, key in _BEFORE_AFTER.items()},
            "folding": {
                "whole_grid": folding_measures(determinant, volume),
                "foreground": folding_measures(determinant, volume, foreground),
            },
        }
        if "label_moving" in data and "label_fixed" in data:
            labels = data["label_fixed"].as_tensor(), data["label_moving"].as_tensor()
            metrics["dice"] = {
                name: dice_per_class(data[f"{key}_label"], *labels) for name, key in _BEFORE_AFTER.items()
            }
            metrics["dice_not_counted"] = uncounted_classes(*labels)
        if "inverse_ddf" in data:
            metrics["inverse"] = _inverse_measures(data, int((determinant <= 0).sum()))
        stacked = determinant.movedim(0, -1) if self.spatial_dims == 2 else determinant[0]
        return {**data, "jacobian": stacked, "metrics": metrics}


_BEFORE_AFTER = {"before": "resampled", "after": "warped"}


def _as_batch(field: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    """(C, X, Y, Z) as a batch for measures: one volume, or one image a slice without the through-plane component."""
    return field[None] if spatial_dims == 3 else field[:2].movedim(-1, 0)


def _inverse_measures(data: Mapping[Hashable, Any], folded: int) -> dict[str, Any]:
    residual = data["inverse_residual_mm"].double()
    unsolved = int((~data["inverse_converged"]).sum())
    measures: dict[str, Any] = {
        "residual_mean_mm": residual.mean().item(),
        "residual_max_mm": residual.max().item(),
        "unsolved_percent": 100 * unsolved / residual.numel(),
    }
    if folded:
        measures["warning"] = f"the field folds at {folded} voxels, where no inverse exists"
    return measures
