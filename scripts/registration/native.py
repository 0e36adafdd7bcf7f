"""From the network's ddf to results on the fixed image's own grid: the postprocessing of ``inference.yaml``.

Keys that arrive: ``native_fixed``, ``native_moving`` and the labels as read, (1, X, Y, Z); ``fixed``, of which the
affine of the network's grid is taken; ``alignment``; ``ddf``, (3, X, Y, Z) in voxels of the network's grid. A pair with
``displacement``, the file of another tool, has no ``ddf`` yet.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform

from ..deformation.formats import read_displacement
from ..deformation.grid import apply_affine, lattice, sample, to_native_ddf
from ..deformation.inversion import invert_ddf

__all__ = ["InvertDdfd", "ToNativeGridd", "WarpMovingd"]

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
