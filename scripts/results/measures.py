"""Measures of one registered pair; the measures of folding are in ``deformation.jacobian``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.metrics import compute_dice
from monai.metrics.utils import get_mask_edges, get_surface_distance
from monai.utils import convert_to_tensor

from ..deformation.grid import by_image
from ..deformation.jacobian import (
    folding_measures,
    jacobian_determinant,
    non_diffeomorphic_volume,
    published_measures,
)
from ..images.intensities import DUST, find_range, tissue_floor
from ..support.errors import InputError
from ..support.notices import image_name, warn
from ..support.slabs import SLAB, masked, mean, share

if TYPE_CHECKING:
    from .registered import RegisteredPair

__all__ = [
    "MeasurePair",
    "common_classes",
    "dice_per_class",
    "end_point_error",
    "flatten",
    "pearson",
    "rescale",
    "rmse",
    "scale",
    "surface_distances",
]

NAN = float("nan")
MOST_NAMED = 20  # ids in a warning
LOSS = 0.01  # of Dice, by a registration, that is not chance
SURFACE_MEASURES = ("hausdorff", "hausdorff95", "surface_distance")


def common_classes(fixed: torch.Tensor, moving: torch.Tensor) -> tuple[list[int], dict[str, str]]:
    """Return the classes that count, and the others, each with the label map that has it.

    A class counts if it is in both *input* label maps. If it has vanished from the result, its Dice is 0; taking the
    classes from the result would miss it. 0 is the background and not a class.
    """
    in_fixed, in_moving = (_ids(label) for label in (fixed, moving))
    others = {str(c): f"only in label_{'fixed' if c in in_fixed else 'moving'}" for c in sorted(in_fixed ^ in_moving)}
    return sorted(in_fixed & in_moving), others


def dice_per_class(fixed: torch.Tensor, warped: torch.Tensor, classes: Sequence[int]) -> dict[str, float]:
    """Measure the Dice of each class in two label maps of the same shape, and the ``mean``; NaN without classes."""
    if not classes:
        return {"mean": NAN}
    # leave out the common background, which is most of a volume: it changes nothing and costs time
    somewhere = (warped != 0) | (fixed != 0)
    fixed, warped = masked(fixed, somewhere), masked(warped, somewhere)
    values = torch.cat([compute_dice((warped == c)[None, None], (fixed == c)[None, None])[0] for c in classes])
    return {**{str(c): value.item() for c, value in zip(classes, values)}, "mean": values.mean().item()}


def surface_distances(
    fixed: torch.Tensor, warped: torch.Tensor, classes: Sequence[int], spacing: Sequence[float], by_slice: bool = False
) -> dict[str, dict[str, float]]:
    """Measure distances between the surfaces of each class in two label maps, in mm, and their means.

    The surface of a class consists of the centres of its voxels that have a face neighbour outside the class, or are at
    the border of the grid. The distances go from each surface voxel to the nearest voxel of the other surface:
    ``hausdorff`` is the largest distance, ``hausdorff95`` the larger of the 95th percentiles of the two directions, and
    ``surface_distance`` the mean over both directions together (average symmetric surface distance).

    Args:
        fixed: the fixed label, shape (X, Y, Z).
        warped: the moving label on the fixed grid, of the same shape.
        classes: the classes to measure.
        spacing: spacing of the grid along each axis of the tensors, in mm.
        by_slice: measure in each slice of the last axis, and average over the slices that have the class in both
            labels.

    Returns:
        for each measure, the value of each class, and the ``mean`` over the classes where it is defined. The value is
        NaN if the class has vanished, or if no slice has it in both labels.
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


def pearson(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Return the Pearson correlation of two images in a mask or everywhere; NaN where it is not defined."""
    a, b = (image.flatten() if mask is None else masked(image, mask) for image in (first, second))
    mean_a, mean_b, aa, ab, bb = mean(a), mean(b), 0.0, 0.0, 0.0
    for part_a, part_b in zip(a.split(SLAB), b.split(SLAB)):
        part_a, part_b = part_a.double() - mean_a, part_b.double() - mean_b
        aa, ab, bb = aa + (part_a @ part_a).item(), ab + (part_a @ part_b).item(), bb + (part_b @ part_b).item()
    if len(a) < 2 or any(math.sqrt(x / len(a)) <= DUST * y.abs().max().item() for x, y in ((aa, a), (bb, b))):
        return NAN
    return max(-1.0, min(1.0, ab / math.sqrt(aa * bb)))


def rmse(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Return the root mean square difference of two images in a mask or everywhere; NaN without voxels."""
    a, b = (image.flatten() if mask is None else masked(image, mask) for image in (first, second))
    squares = [(x.double() - y).square().sum().item() for x, y in zip(a.split(SLAB), b.split(SLAB))]
    return math.sqrt(sum(squares) / len(a)) if len(a) else NAN


def rescale(
    image: torch.Tensor, reference: torch.Tensor, intensity_range: tuple[float, float] | None = None
) -> torch.Tensor:
    """Clip an image to a range of intensities and scale it to [0, 1], as the preprocessing does.

    Args:
        image: an image of any shape.
        reference: the image as it was read, from which ``image`` was resampled.
        intensity_range: the intensities that become 0 and 1; None means those that :func:`find_range` finds in the
            reference, without its padding.

    Returns:
        zeros if the reference has only one intensity.
    """
    return scale(image, intensity_range or find_range(reference.clamp(min=tissue_floor(reference)).numpy()))


def scale(image: torch.Tensor, limits: tuple[float, float] | None) -> torch.Tensor:
    """Clip an image to these two intensities and scale it to [0, 1]; zeros where there are none."""
    if limits is None:
        return torch.zeros_like(image)
    low, high = limits
    return (image - low).div_(high - low).clamp_(0, 1)


def end_point_error(
    ddf: torch.Tensor, truth: torch.Tensor, affine: torch.Tensor, mask: torch.Tensor
) -> dict[str, float]:
    """Return the mean length of the difference of two displacements where the mask is true; NaN if it is empty.

    Args:
        ddf: the displacement in voxels, shape (3, X, Y, Z).
        truth: the true displacement in voxels, of the same shape.
        affine: voxel to world in mm, shape (4, 4).
        mask: where to measure, boolean, shape (X, Y, Z).

    Returns:
        ``mean_voxel`` and ``mean_mm``.
    """
    error = (ddf - truth)[:, mask].double()
    millimetres = affine[:3, :3].double() @ error
    return {"mean_voxel": error.norm(dim=0).mean().item(), "mean_mm": millimetres.norm(dim=0).mean().item()}


def flatten(metrics: Mapping[str, Any], label_names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Flatten nested dictionaries to keys such as ``dice.after.LV``; a class without a name keeps its number."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        name = (label_names or {}).get(key, key)
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": item for inner, item in flatten(value, label_names).items()}
        else:
            flat[name] = value
    return flat


class MeasurePair:
    """Measures a registered pair; the result is nested dictionaries for ``metrics.json``.

    The foreground is the brain, where its mask was found or given, or else where the fixed image is above its minimum:
    the brain in a skull-stripped image, nearly everything in other images. Image similarity is measured in the
    foreground, folding and the end-point error both there and on the whole grid.

    Args:
        spatial_dims: 2 or 3, as the network; for 2, the field and the surfaces are measured slice by slice.
        surfaces: also measure the distances between label surfaces, which takes longer than everything else.
        slices: measure only these slices of a stack, from 0, the first, to 1, the last; None measures all.
        inverse: also measure the inverse displacement.

    Raises:
        InputError: when slices do not have this form.
    """

    def __init__(
        self,
        spatial_dims: int,
        surfaces: bool = False,
        slices: Sequence[float] | None = None,
        inverse: bool = False,
    ) -> None:
        if slices is not None and (spatial_dims == 3 or not slices or not all(0 <= s <= 1 for s in slices)):
            raise InputError(
                f"slices: found {slices} for a {spatial_dims}D model: expected positions from 0 to 1, in 2D."
            )
        self.spatial_dims = spatial_dims
        self.surfaces = surfaces
        self.slices = slices
        self.inverse = inverse

    def __call__(self, pair: RegisteredPair) -> dict[str, Any]:
        fixed, ddf = _plain(pair.fixed)[0], _plain(pair.ddf)
        chosen = self._chosen_slices(fixed.shape[2])
        fixed = fixed.clamp(min=pair.floors["fixed"])
        brain = pair.brain_masks.get("brain_mask_fixed")
        foreground = (fixed > fixed.min().item() if brain is None else _plain(brain)[0] > 0) & chosen
        areas = {"whole_grid": chosen.expand_as(foreground), "foreground": foreground}
        metrics: dict[str, Any] = {**_similarity(pair, foreground), "folding": self._folding(pair, areas)}
        if pair.true_ddf is not None:
            metrics["end_point_error"] = {
                name: end_point_error(ddf, pair.true_ddf, pair.fixed.affine, mask) for name, mask in areas.items()
            }
        if pair.label_moving is not None:
            metrics |= _lost_labels(pair)
            if pair.label_fixed is not None:
                metrics |= self._overlap(pair, chosen)
        if self.inverse:
            metrics["inverse"] = _inverse_measures(pair)
        return metrics

    def _chosen_slices(self, depth: int) -> torch.Tensor:
        """Return which positions of the last axis are measured, boolean, shape (depth,)."""
        if self.slices is None:
            return torch.ones(depth, dtype=torch.bool)
        chosen = torch.zeros(depth, dtype=torch.bool)
        chosen[[round(position * (depth - 1)) for position in self.slices]] = True
        return chosen

    def _folding(self, pair: RegisteredPair, areas: Mapping[str, torch.Tensor]) -> dict[str, dict[str, float]]:
        ddf = by_image(pair.ddf, self.spatial_dims)
        determinant = by_image(pair.jacobian, self.spatial_dims)[:, 0]
        masks = {name: by_image(mask[None], self.spatial_dims)[:, 0] for name, mask in areas.items()}
        volume = non_diffeomorphic_volume(ddf)
        measures = {name: folding_measures(determinant, volume, mask) for name, mask in masks.items()}
        del volume  # large, as what follows is
        central = jacobian_determinant(ddf, central=True)
        return {name: {**measures[name], **published_measures(central, mask)} for name, mask in masks.items()}

    def _overlap(self, pair: RegisteredPair, chosen: torch.Tensor) -> dict[str, Any]:
        select = (lambda label: _plain(label)[0]) if chosen.all() else (lambda label: _plain(label)[0][..., chosen])
        fixed = select(pair.label_fixed)
        classes, others = common_classes(fixed, _plain(pair.label_moving))
        if others and not classes:
            warn(
                f"{image_name(pair.label_fixed)} and {image_name(pair.label_moving)} have no id in common, "
                f"but {', '.join(f'{c} {where}' for c, where in others.items())}: there is no Dice."
            )
        before_after = {"before": pair.label_resampled, "after": pair.label_warped}
        results = {name: select(label) for name, label in before_after.items()}
        overlap: dict[str, Any] = {
            "dice": {name: dice_per_class(fixed, label, classes) for name, label in results.items()},
            "dice_not_counted": others,
        }
        before, after = (overlap["dice"][name]["mean"] for name in results)
        if after < before - LOSS:
            warn(
                f"{image_name(pair.label_moving)} fits {image_name(pair.label_fixed)} less well after the registration "
                f"than before: Dice {after:.3f}, {before:.3f} before."
            )
        if self.surfaces:
            spacing = [float(s) for s in pair.fixed.pixdim]
            for name, label in results.items():
                distances = surface_distances(fixed, label, classes, spacing, by_slice=self.spatial_dims == 2)
                for measure, values in distances.items():
                    overlap.setdefault(f"{measure}_mm", {})[name] = values
                undefined = sum(math.isnan(distances["hausdorff"][str(c)]) for c in classes)
                overlap.setdefault("distance_undefined", {})[name] = undefined
        return overlap


def _lost_labels(pair: RegisteredPair) -> dict[str, list[int]]:
    """The ids of the moving label that are not in the result, as ``lost_labels``; nothing where there are none."""
    before, after = (_ids(_plain(label)) for label in (pair.label_moving, pair.label_warped))
    lost = sorted(before - after)
    if not lost:
        return {}
    more = ", ..." if len(lost) > MOST_NAMED else ""
    ids = ", ".join(map(str, lost[:MOST_NAMED])) + more
    warn(
        f"label_moving: {image_name(pair.label_moving)} loses {len(lost)} of {len(before)} ids, "
        f"by nearest neighbour or outside the fixed image: {ids}."
    )
    return {"lost_labels": lost}


def _ids(label: torch.Tensor) -> set[int]:
    """The ids of a label map but 0, the background."""
    parts = label.flatten().split(SLAB)
    return {int(value) for part in parts for value in part[part != 0].unique()}


def _plain(values: Any) -> torch.Tensor:
    return convert_to_tensor(values, track_meta=False)


def _similarity(pair: RegisteredPair, mask: torch.Tensor) -> dict[str, dict[str, float]]:
    fixed = masked(_plain(pair.fixed)[0], mask).clamp(min=pair.floors["fixed"])
    result: dict[str, dict[str, float]] = {"ncc": {}, "rmse": {}}
    scaled = scale(fixed, pair.ranges["fixed"])
    for name in ("before", "after"):
        image = pair.resampled if name == "before" else pair.warped
        tissue = masked(_plain(image)[0], mask).clamp(min=pair.floors["moving"])
        result["ncc"][name] = pearson(fixed, tissue)
        result["rmse"][name] = rmse(scaled, scale(tissue, pair.ranges["moving"]))
    return result


def _inverse_measures(pair: RegisteredPair) -> dict[str, Any]:
    inversion = pair.inversion
    covered = inversion.covered
    part = share(covered)
    residual = masked(inversion.residual_mm, covered)
    measures: dict[str, Any] = {
        "covered_percent": 100 * part,  # of the moving image: where the inverse leads into the fixed one
        "residual_mean_mm": mean(residual),
        "residual_max_mm": residual.max().item() if part else NAN,
        "unsolved_percent": 100 * share(~masked(inversion.solved, covered)),
    }
    if not part:
        warn(
            f"{image_name(pair.moving)}: no point of the moving image leads back into the fixed one: "
            "the inverse is empty."
        )
    folded = int((_plain(pair.jacobian) <= 0).sum())
    if folded:
        measures["warning"] = f"the field folds at {folded} voxels, where no inverse exists"
    return measures


def _crop(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crop both arrays to the bounding box of everything that is not 0 in either."""
    somewhere = (first != 0) | (second != 0)
    axes = range(somewhere.ndim)
    found = [np.flatnonzero(somewhere.any(tuple(other for other in axes if other != axis))) for axis in axes]
    box = tuple(slice(index[0], index[-1] + 1) if len(index) else slice(0) for index in found)
    return first[box], second[box]


def _surface_measures(masks: Sequence[tuple[np.ndarray, np.ndarray]], spacing: np.ndarray) -> np.ndarray:
    """Return the three measures, averaged over the pairs of masks that are both not empty; NaN if there are none."""
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
