"""Prints the measures of many pairs as tables of text.

python -m scripts.results.tables FOLDER ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .measures import flatten

__all__ = [
    "EJECTION_FRACTION",
    "cines_table",
    "class_names",
    "column_values",
    "measures_row",
    "pairs_table",
    "results_table",
    "summary_table",
    "text_table",
]

REGULARITY = {
    "|J| <= 0, %": "folding_percent",
    "NDV, %": "ndv_percent",
    "std log|J|": "std_log_jacobian",
    "SDlogJ of Learn2Reg": "learn2reg_sdlogj",
    "mean |grad |J||": "mean_gradient_jacobian",
}
DISTANCES = {"HD mm": "hausdorff_mm", "HD95 mm": "hausdorff95_mm", "ASSD mm": "surface_distance_mm"}

EJECTION_FRACTION = "ejection_fraction_percent.LV"
CINES = {
    "EDV ml": "end_diastolic_volume_ml.LV",
    "ESV ml": "end_systolic_volume_ml.LV",
    "SV ml": "stroke_volume_ml.LV",
    "EF %": EJECTION_FRACTION,
    "mass g": "myocardial_mass_g",
    "GCS %": "peak_circumferential_percent.global",
    "GRS %": "peak_radial_percent.global",
}

Row = dict[str, Any]
Cell = float | str | None


def results_table(folder: Path) -> str:
    """Make a table with one line per ``metrics.json`` below a folder, and their mean."""
    paths = sorted(folder.rglob("metrics.json"))
    return pairs_table([measures_row(str(p.parent.relative_to(folder)), json.loads(p.read_text())) for p in paths])


def measures_row(name: str, metrics: Mapping[str, Any], label_names: Mapping[str, str] | None = None) -> Row:
    """Flatten the measures of a pair to a row, with its ``verdict``, its ``score`` and the ``reasons`` as text."""
    row = {"pair": name, **flatten({key: value for key, value in metrics.items() if key != "verdict"}, label_names)}
    said = metrics.get("verdict") or {}
    return row | flatten({**said, "reasons": "; ".join(said.get("reasons") or ())}) if said else row


def pairs_table(rows: Sequence[Row]) -> str:
    """Make a table of the most important measures with one line per pair, and their mean; with verdicts if any has."""
    columns = ["dice.before.mean", "dice.after.mean"]
    columns += [f"folding.whole_grid.{key}" for key in ("folding_percent", "ndv_percent", "std_log_jacobian")]
    said = ["verdict"] if any("verdict" in row for row in rows) else []
    lines = [(str(row["pair"]), [row.get(column) for column in (*columns, *said)]) for row in rows]
    values = [column_values(rows, column) for column in columns]
    means: list[Cell] = [float(np.mean(known)) if known else None for known in values]
    titles = ("pair", "Dice before", "after", "|J|<=0 %", "NDV %", "std log|J|", *said)
    end = (f"mean of {len(rows)}", means + [""] * len(said))
    return text_table(titles, [*lines, end], (3, 3, 4, 4, 3) + (0,) * len(said))


def cines_table(rows: Sequence[Row]) -> str:
    """Make a table of volumes, peak strain and verdicts with one line per cine."""
    columns = {**CINES, "verdict": "verdict"}
    lines = [(str(row["pair"]), [row.get(column) for column in columns.values()]) for row in rows]
    return text_table(("cine", *columns), lines, (1,) * len(columns))


def summary_table(measures: Mapping[str, Mapping[str, float]]) -> str:
    """Make tables of the means over all pairs: overlap and distance of each class, similarity, regularity."""

    def means(*columns: str) -> list[float | None]:
        return [measures[column]["mean"] if column in measures else None for column in columns]

    def both(measure: str, name: str) -> list[float | None]:
        return means(f"{measure}.before.{name}", f"{measure}.after.{name}")

    tables = []
    if class_names(measures):
        groups = {"Dice": "dice", **{title: key for title, key in DISTANCES.items() if f"{key}.after.mean" in measures}}
        titles = ["class", *(title for group in groups for title in (f"{group} before", "after"))]
        lines = [(c, [v for key in groups.values() for v in both(key, c)]) for c in (*class_names(measures), "mean")]
        tables.append(text_table(titles, lines, (3,) * (len(titles) - 1)))
        (undefined,) = means("distance_undefined.after")
        if undefined:
            tables.append(f"classes per pair that have vanished and have no distance: {undefined:.2f}")
    images = [(title, means(f"{key}.before", f"{key}.after")) for title, key in (("NCC", "ncc"), ("RMSE", "rmse"))]
    tables.append(text_table(("image", "before", "after"), images, (3, 3)))
    areas = ("whole_grid", "foreground")
    lines = [(title, means(*(f"folding.{area}.{key}" for area in areas))) for title, key in REGULARITY.items()]
    if "end_point_error.whole_grid.mean_mm" in measures:
        lines.append(("end-point error, mm", means(*(f"end_point_error.{area}.mean_mm" for area in areas))))
    tables.append(text_table(("displacement", "whole grid", "foreground"), lines, (4, 4)))
    return "\n\n".join(tables)


def class_names(columns: Iterable[str]) -> list[str]:
    """Return the classes that have a Dice after registration."""
    prefix = "dice.after."
    return [c.removeprefix(prefix) for c in columns if c.startswith(prefix) and c != f"{prefix}mean"]


def column_values(rows: Sequence[Row], column: str) -> list[float]:
    """Return the numbers in one column, without undefined values and text."""
    return [row[column] for row in rows if isinstance(row.get(column), int | float)]


def text_table(titles: Sequence[str], lines: Sequence[tuple[str, Sequence[Cell]]], digits: Sequence[int]) -> str:
    """Align names to the left, numbers and other texts to the right; None becomes a dash."""
    first = max(len(titles[0]), *(len(name) for name, _ in lines)) + 2
    widths = [max(len(title), 6) + 2 for title in titles[1:]]
    text = [titles[0].ljust(first) + "".join(title.rjust(width) for title, width in zip(titles[1:], widths))]
    for name, values in lines:
        cells = [_cell(value, places) for value, places in zip(values, digits)]
        text.append((name.ljust(first) + "".join(cell.rjust(width) for cell, width in zip(cells, widths))).rstrip())
    return "\n".join(text)


def _cell(value: Cell, digits: int) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(f"\n{argument}\n{results_table(Path(argument))}")
        for picture in sorted(Path(argument).rglob("overview.png")):
            print(f"overview: {picture}")
