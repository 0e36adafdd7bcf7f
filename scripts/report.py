"""What a person looks at: the overview picture of a pair, and tables of many."""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .metrics import flatten, rescale

__all__ = [
    "class_names",
    "column_values",
    "draw_grid",
    "draw_overview",
    "pairs_table",
    "results_table",
    "summary_table",
]

COLUMNS = ("fixed", "moving", "warped", "difference before", "difference after", "warped grid", "Jacobian determinant")
GRID_LINES = 24
REGULARITY = {
    "|J| <= 0, %": "folding_percent",
    "NDV, %": "ndv_percent",
    "std log|J|": "std_log_jacobian",
    "SDlogJ of Learn2Reg": "learn2reg_sdlogj",
    "mean |grad |J||": "mean_gradient_jacobian",
}
DISTANCES = {"HD mm": "hausdorff_mm", "HD95 mm": "hausdorff95_mm", "ASSD mm": "surface_distance_mm"}

Row = dict[str, Any]


def draw_overview(result: Mapping[Hashable, Any], path: Path) -> None:
    """Draw fixed, moving, warped, differences, grid and |J| of three slices (2D stack) or three planes (3D).

    Label contours are drawn where labels were given: fixed green, warped moving red. On the map of |J|, 1 is white,
    compression blue, expansion red, and folds (|J| <= 0) are magenta.

    Args:
        result: what the postprocessing of ``inference.yaml`` returns.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure  # slow to import, and only wanted here

    planes = list(_planes(result))
    heights = [plane["fixed"].shape[1] * plane["aspect"] / plane["fixed"].shape[0] for plane in planes]
    figure = Figure(figsize=(2.4 * len(COLUMNS) + 0.6, 2.4 * sum(heights) + 0.5), layout="constrained", dpi=100)
    axes = figure.subplots(len(planes), len(COLUMNS), squeeze=False, height_ratios=heights)
    for row, plane in zip(axes, planes):
        _draw_row(figure, row, plane)
    for axis, title in zip(axes[0], COLUMNS):
        axis.set_title(title, fontsize=9)
    figure.savefig(path, format="png")


def _planes(result: Mapping[Hashable, Any]) -> Iterator[dict[str, Any]]:
    """Slices of everything that is drawn; in-plane axes first to last, in the fixed image's own orientation."""
    volumes = {
        "fixed": _scaled(result["native_fixed"][0]),
        "moving": _scaled(result["resampled"][0]),
        "warped": _scaled(result["warped"][0]),
        "jacobian": np.asarray(result["jacobian"]),
    }
    volumes |= {key: np.asarray(result[key][0]) for key in ("label_fixed", "warped_label") if key in result}
    ddf = np.asarray(result["ddf"])
    spacing = np.asarray(result["native_fixed"].pixdim)
    for axis, index, name in _cuts(volumes["fixed"].shape, spacing):
        i, j = (a for a in range(3) if a != axis)
        plane: dict[str, Any] = {key: volume.take(index, axis) for key, volume in volumes.items()}
        plane["ddf"] = ddf[[i, j]].take(index, axis + 1)
        plane["aspect"] = spacing[j] / spacing[i]
        plane["name"] = name
        yield plane


def _cuts(shape: tuple[int, ...], spacing: np.ndarray) -> list[tuple[int, int, str]]:
    """(axis, index, name): the middle of each axis, or three slices of a stack with thick slices."""
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
    if "warped_label" in plane:
        _draw_contours(axes[2], plane["warped_label"], "red")
    axes[0].set_ylabel(plane["name"], fontsize=8)


def _show(axis: Any, image: np.ndarray, aspect: float, **style: Any) -> Any:
    axis.set_xticks([])
    axis.set_yticks([])
    return axis.imshow(image.T, origin="lower", aspect=aspect, interpolation="nearest", **style)


def draw_grid(axis: Any, ddf: np.ndarray, aspect: float = 1.0) -> None:
    """Where the points of a regular grid are taken from in the moving image; ddf (2, X, Y) in voxels."""
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


def _scaled(image: Any) -> np.ndarray:
    return np.asarray(rescale(image, image))


def results_table(folder: Path) -> str:
    """One line for each ``metrics.json`` below a folder, and their mean."""
    paths = sorted(folder.rglob("metrics.json"))
    return pairs_table(
        [{"pair": str(p.parent.relative_to(folder)), **flatten(json.loads(p.read_text()))} for p in paths]
    )


def pairs_table(rows: Sequence[Row]) -> str:
    """A line a pair with the most important measures, and their mean."""
    columns = ["dice.before.mean", "dice.after.mean"]
    columns += [f"folding.whole_grid.{key}" for key in ("folding_percent", "ndv_percent", "std_log_jacobian")]
    lines = [(str(row["pair"]), [row.get(column) for column in columns]) for row in rows]
    values = [column_values(rows, column) for column in columns]
    means = [float(np.mean(known)) if known else None for known in values]
    titles = ("pair", "Dice before", "after", "|J|<=0 %", "NDV %", "std log|J|")
    return _text_table(titles, [*lines, (f"mean of {len(rows)}", means)], (3, 3, 4, 4, 3))


def summary_table(measures: Mapping[str, Mapping[str, float]]) -> str:
    """The means over all pairs, as text: overlap and distance of each class, similarity, regularity."""

    def means(*columns: str) -> list[float | None]:
        return [measures[column]["mean"] if column in measures else None for column in columns]

    def both(measure: str, name: str) -> list[float | None]:
        return means(f"{measure}.before.{name}", f"{measure}.after.{name}")

    tables = []
    if class_names(measures):
        groups = {"Dice": "dice", **{title: key for title, key in DISTANCES.items() if f"{key}.after.mean" in measures}}
        titles = ["class", *(title for group in groups for title in (f"{group} before", "after"))]
        lines = [(c, [v for key in groups.values() for v in both(key, c)]) for c in (*class_names(measures), "mean")]
        tables.append(_text_table(titles, lines, (3,) * (len(titles) - 1)))
        (undefined,) = means("distance_undefined.after")
        if undefined:
            tables.append(f"classes a pair that vanished and have no distance: {undefined:.2f}")
    images = [(title, means(f"{key}.before", f"{key}.after")) for title, key in (("NCC", "ncc"), ("RMSE", "rmse"))]
    tables.append(_text_table(("image", "before", "after"), images, (3, 3)))
    areas = ("whole_grid", "foreground")
    lines = [(title, means(*(f"folding.{area}.{key}" for area in areas))) for title, key in REGULARITY.items()]
    if "end_point_error.whole_grid.mean_mm" in measures:
        lines.append(("end-point error, mm", means(*(f"end_point_error.{area}.mean_mm" for area in areas))))
    tables.append(_text_table(("displacement", "whole grid", "foreground"), lines, (4, 4)))
    return "\n\n".join(tables)


def class_names(columns: Iterable[str]) -> list[str]:
    """The classes that have a Dice after registration."""
    prefix = "dice.after."
    return [c.removeprefix(prefix) for c in columns if c.startswith(prefix) and c != f"{prefix}mean"]


def column_values(rows: Sequence[Row], column: str) -> list[float]:
    """The numbers in one column; undefined ones and text are left out."""
    return [row[column] for row in rows if isinstance(row.get(column), int | float)]


def _text_table(
    titles: Sequence[str], lines: Sequence[tuple[str, Sequence[float | None]]], digits: Sequence[int]
) -> str:
    """Names to the left, numbers to the right; None is a dash."""
    first = max(len(titles[0]), *(len(name) for name, _ in lines)) + 2
    widths = [max(len(title), 6) + 2 for title in titles[1:]]
    text = [titles[0].ljust(first) + "".join(title.rjust(width) for title, width in zip(titles[1:], widths))]
    for name, values in lines:
        cells = ["-" if value is None else f"{value:.{places}f}" for value, places in zip(values, digits)]
        text.append(name.ljust(first) + "".join(cell.rjust(width) for cell, width in zip(cells, widths)))
    return "\n".join(text)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(f"\n{argument}\n{results_table(Path(argument))}")
        for picture in sorted(Path(argument).rglob("overview.png")):
            print(f"overview: {picture}")
