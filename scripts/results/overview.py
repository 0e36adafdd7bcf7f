"""The overview picture of one registered pair."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.utils import convert_to_tensor

from .measures import rescale

if TYPE_CHECKING:
    from .registered import RegisteredPair

__all__ = ["draw_grid", "draw_overview"]

COLUMNS = ("fixed", "moving", "warped", "difference before", "difference after", "warped grid", "Jacobian determinant")
GRID_LINES = 24


def draw_overview(pair: RegisteredPair, path: Path) -> None:
    """Draw fixed, moving, warped, differences, grid and |J| of three slices (2D stack) or three planes (3D).

    If there are labels, their contours are drawn: fixed in green, warped moving in red. In the map of |J|, 1 is white,
    compression blue, expansion red, and folds (|J| <= 0) are magenta.

    Args:
        pair: the registered pair.
        path: the PNG file to write.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    planes = list(_planes(pair))
    heights = [plane["fixed"].shape[1] * plane["aspect"] / plane["fixed"].shape[0] for plane in planes]
    figure = Figure(figsize=(2.4 * len(COLUMNS) + 0.6, 2.4 * sum(heights) + 0.5), layout="constrained", dpi=100)
    axes = figure.subplots(len(planes), len(COLUMNS), squeeze=False, height_ratios=heights)
    for row, plane in zip(axes, planes):
        _draw_row(figure, row, plane)
    for axis, title in zip(axes[0], COLUMNS):
        axis.set_title(title, fontsize=9)
    figure.savefig(path, format="png")


def _planes(pair: RegisteredPair) -> Iterator[dict[str, Any]]:
    """Cut slices of everything that is drawn, in the orientation of the fixed image."""
    images = {"fixed": pair.fixed, "moving": pair.resampled, "warped": pair.warped}
    volumes = {key: _array(image)[0] for key, image in {**images, "jacobian": pair.jacobian}.items()}
    labels = {"label_fixed": pair.label_fixed, "label_warped": pair.label_warped}
    volumes |= {key: _array(label)[0] for key, label in labels.items() if label is not None}
    ddf = _array(pair.ddf)
    spacing = np.asarray(pair.fixed.pixdim)
    for axis, index, name in _cuts(volumes["fixed"].shape, spacing):
        i, j = (a for a in range(3) if a != axis)
        plane: dict[str, Any] = {key: volume.take(index, axis) for key, volume in volumes.items()}
        for key in images:
            whole = torch.from_numpy(volumes[key])
            plane[key] = rescale(torch.from_numpy(plane[key]), whole, pair.intensity_range).numpy()
        plane["ddf"] = np.stack([ddf[i].take(index, axis), ddf[j].take(index, axis)])
        plane["aspect"] = spacing[j] / spacing[i]
        plane["name"] = name
        yield plane


def _cuts(shape: tuple[int, ...], spacing: np.ndarray) -> list[tuple[int, int, str]]:
    """Return (axis, index, name) for the middle of each axis, or for three slices of a stack with thick slices."""
    if shape[2] == 1 or spacing[2] > 2 * max(spacing[:2]):
        indices = sorted({round(fraction * (shape[2] - 1)) for fraction in (0.25, 0.5, 0.75)})
        return [(2, index, f"slice {index}") for index in indices]
    return [(axis, shape[axis] // 2, f"axis {'ijk'[axis]} = {shape[axis] // 2}") for axis in (2, 1, 0)]


def _draw_row(figure: Any, axes: Any, plane: dict[str, Any]) -> None:
    gray = {"cmap": "gray", "vmin": 0, "vmax": 1}
    before, after = plane["fixed"] - plane["moving"], plane["fixed"] - plane["warped"]
    for axis, key in zip(axes, ("fixed", "moving", "warped")):
        _show(axis, plane[key], plane["aspect"], **gray)
    for axis, difference in zip(axes[3:], (before, after)):
        _show(axis, difference, plane["aspect"], cmap="RdBu_r", vmin=-1, vmax=1)
    draw_grid(axes[5], plane["ddf"], plane["aspect"])
    jacobian = _show(axes[6], plane["jacobian"], plane["aspect"], cmap=_jacobian_colors(), vmin=0, vmax=2)
    bar = figure.colorbar(jacobian, ax=axes[6], extend="both", ticks=[0, 0.5, 1, 1.5, 2])
    bar.ax.tick_params(labelsize=7)
    if "label_fixed" in plane:
        _draw_contours(axes[0], plane["label_fixed"], "lime")
        _draw_contours(axes[2], plane["label_fixed"], "lime")
    if "label_warped" in plane:
        _draw_contours(axes[2], plane["label_warped"], "red")
    axes[0].set_ylabel(plane["name"], fontsize=8)


def _show(axis: Any, image: np.ndarray, aspect: float, **style: Any) -> Any:
    axis.set_xticks([])
    axis.set_yticks([])
    return axis.imshow(image.T, origin="lower", aspect=aspect, interpolation="nearest", **style)


def draw_grid(axis: Any, ddf: np.ndarray, aspect: float = 1.0) -> None:
    """Draw where the points of a regular grid are sampled in the moving image; ddf in voxels, shape (2, X, Y)."""
    i, j = np.meshgrid(*[np.arange(n) for n in ddf.shape[1:]], indexing="ij")
    x, y = i + ddf[0], j + ddf[1]
    step = max(1, max(x.shape) // GRID_LINES)
    axis.plot(x[::step].T, y[::step].T, color="black", linewidth=0.4)
    axis.plot(x[:, ::step], y[:, ::step], color="black", linewidth=0.4)
    axis.set(xlim=(-0.5, x.shape[0] - 0.5), ylim=(-0.5, x.shape[1] - 0.5), aspect=aspect, xticks=[], yticks=[])


def _draw_contours(axis: Any, label: np.ndarray, color: str) -> None:
    for value in np.unique(label)[1:]:
        axis.contour((label == value).T, levels=[0.5], colors=color, linewidths=0.7)


def _jacobian_colors() -> Any:
    from matplotlib import colormaps

    return colormaps["RdBu_r"].with_extremes(under="magenta")


def _array(values: Any) -> np.ndarray:
    return convert_to_tensor(values, track_meta=False).numpy()
