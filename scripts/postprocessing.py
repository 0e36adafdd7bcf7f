"""From the network's ddf to results on the fixed image's own grid: the postprocessing of ``inference.yaml``.

Keys that arrive: ``native_fixed``, ``native_moving`` and the labels as read, (1, X, Y, Z); ``fixed``, of which the
affine of the network's grid is taken; ``alignment``; ``ddf``, (3, X, Y, Z) in voxels of the network's grid. A pair with
``displacement``, the file of another tool, has no ``ddf`` yet.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform

from .deformation.formats import read_displacement
from .deformation.grid import apply_affine, lattice, sample, to_native_ddf
from .deformation.inversion import invert_ddf
from .deformation.jacobian import (
    folding_measures,
    jacobian_determinant,
    non_diffeomorphic_volume,
    published_measures,
)
from .errors import InputError
from .metrics import common_classes, dice_per_class, end_point_error, ncc, rescale, rmse, surface_distances

__all__ = ["InvertDdfd", "MeasurePaird", "ToNativeGridd", "WarpMovingd"]

Data = dict[Hashable, Any]


class ToNativeGridd(Transform):
    """Replace ``ddf`` by the displacement in voxels of the fixed image's own grid, (3, X, Y, Z), alignment included.

    Where the pair has ``displacement``, a file as :func:`read_displacement` takes it, ``ddf`` is read from it. Where it
    has ``true_displacement``, such a file too, ``true_ddf`` is added.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        native, result = data["native_fixed"], dict(data)
        if "displacement" not in data:
            ddf = data["ddf"].detach().cpu()
            grids = data["fixed"].affine, native.affine, native.shape[1:]
            result["ddf"] = to_native_ddf(ddf, *grids, data["alignment"])
        for key, name in (("displacement", "ddf"), ("true_displacement", "true_ddf")):
            if key in data:
                result[name] = read_displacement(data[key], key, native.affine, native.shape[1:])
        return result


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
    """Add ``jacobian`` (X, Y, Z) and ``metrics``, a dictionary of dictionaries ready for ``metrics.json``.

    The foreground, where image similarity and half of folding and end-point error are measured, is where the fixed
    image is above its minimum: the brain of a skull-stripped image, nearly everything of others.

    Args:
        spatial_dims: of the network: the field of a 2D one and its surfaces are measured slice by slice.
        surfaces: measure the distances between label surfaces too, which takes longer than the rest.
        slices: of a stack, measure only these, from 0, the first, to 1, the last; None measures all. The jacobian is
            that of all of them.

    Raises:
        InputError: when slices are not of that form.
    """

    def __init__(self, spatial_dims: int, surfaces: bool = False, slices: Sequence[float] | None = None) -> None:
        if slices is not None and (spatial_dims == 3 or not slices or not all(0 <= s <= 1 for s in slices)):
            raise InputError(
                f"slices: found {slices} for a {spatial_dims}D model: expected positions from 0 to 1, in 2D."
            )
        self.spatial_dims = spatial_dims
        self.surfaces = surfaces
        self.slices = slices

    def __call__(self, data: Mapping[Hashable, Any]) -> Data:
        fixed = data["native_fixed"]
        chosen = self._chosen_slices(fixed.shape[3])
        foreground = (fixed.as_tensor()[0] > fixed.min().item()) & chosen
        ddf = _as_batch(data["ddf"], self.spatial_dims)
        determinant = jacobian_determinant(ddf)
        areas = {"whole_grid": chosen.expand_as(foreground), "foreground": foreground}
        metrics: dict[str, Any] = {**_similarity(data, foreground), "folding": self._folding(ddf, determinant, areas)}
        if "true_ddf" in data:
            displacements = data["ddf"], data["true_ddf"], fixed.affine
            metrics["end_point_error"] = {name: end_point_error(*displacements, mask) for name, mask in areas.items()}
        if "label_moving" in data and "label_fixed" in data:
            metrics |= self._overlap(data, chosen)
        if "inverse_ddf" in data:
            metrics["inverse"] = _inverse_measures(data, int((determinant <= 0).sum()))
        stacked = determinant.movedim(0, -1) if self.spatial_dims == 2 else determinant[0]
        return {**data, "jacobian": stacked, "metrics": metrics}

    def _chosen_slices(self, depth: int) -> torch.Tensor:
        """Boolean, (depth,): which positions of the last axis are measured."""
        if self.slices is None:
            return torch.ones(depth, dtype=torch.bool)
        chosen = torch.zeros(depth, dtype=torch.bool)
        chosen[[round(position * (depth - 1)) for position in self.slices]] = True
        return chosen

    def _folding(
        self, ddf: torch.Tensor, determinant: torch.Tensor, areas: Mapping[str, torch.Tensor]
    ) -> dict[str, dict[str, float]]:
        volume, central = non_diffeomorphic_volume(ddf), jacobian_determinant(ddf, central=True)
        masks = {name: _as_batch(mask[None], self.spatial_dims)[:, 0] for name, mask in areas.items()}
        return {
            name: {**folding_measures(determinant, volume, mask), **published_measures(central, mask)}
            for name, mask in masks.items()
        }

    def _overlap(self, data: Mapping[Hashable, Any], chosen: torch.Tensor) -> dict[str, Any]:
        fixed = data["label_fixed"].as_tensor()[0][..., chosen]
        classes, others = common_classes(fixed, data["label_moving"].as_tensor())
        results = {name: data[f"{key}_label"][0][..., chosen] for name, key in _BEFORE_AFTER.items()}
        overlap: dict[str, Any] = {
            "dice": {name: dice_per_class(label, fixed, classes) for name, label in results.items()},
            "dice_not_counted": others,
        }
        if self.surfaces:
            spacing = [float(s) for s in data["native_fixed"].pixdim]
            for name, label in results.items():
                distances = surface_distances(label, fixed, classes, spacing, by_slice=self.spatial_dims == 2)
                for measure, values in distances.items():
                    overlap.setdefault(f"{measure}_mm", {})[name] = values
                undefined = sum(math.isnan(distances["hausdorff"][str(c)]) for c in classes)
                overlap.setdefault("distance_undefined", {})[name] = undefined
        return overlap


_BEFORE_AFTER = {"before": "resampled", "after": "warped"}


def _as_batch(field: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    """(C, X, Y, Z) as a batch for measures: one volume, or one image a slice without the through-plane component."""
    return field[None] if spatial_dims == 3 else field[:2].movedim(-1, 0)


def _similarity(data: Mapping[Hashable, Any], mask: torch.Tensor) -> dict[str, dict[str, float]]:
    fixed = data["native_fixed"].as_tensor()[0]
    result: dict[str, dict[str, float]] = {"ncc": {}, "rmse": {}}
    for name, key in _BEFORE_AFTER.items():
        moving = data[key][0]
        result["ncc"][name] = ncc(fixed, moving, mask)
        scaled = rescale(fixed, fixed), rescale(moving, data["native_moving"].as_tensor())
        result["rmse"][name] = rmse(*scaled, mask)
    return result


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
