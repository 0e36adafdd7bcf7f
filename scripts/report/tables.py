"""The numbers of a report: the columns of its table, the distributions of its measures, the tables of one pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..results.tables import EJECTION_FRACTION, REGULARITY, class_names
from .entries import VERDICTS, Entry

__all__ = ["COLUMNS", "Bar", "Column", "Histogram", "Table", "histograms", "tables_of", "used_columns"]


@dataclass(frozen=True)
class Column:
    """A measure: what it is called, its key in a row, its unit and decimals, and what it means."""

    title: str
    key: str
    unit: str
    digits: int
    meaning: str

    def text(self, entry: Entry) -> str:
        value = self.value(entry)
        return UNKNOWN if value is None else f"{value:.{self.digits}f}"

    def value(self, entry: Entry) -> float | None:
        value = entry.row.get(self.key)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


COLUMNS = (
    Column("P(failure)", "score", "", 2, "probability that this registration has failed"),
    Column("Dice before", "dice.before.mean", "", 3, "mean overlap of the labels without the registration"),
    Column("Dice", "dice.after.mean", "", 3, "mean overlap of the labels after the registration"),
    Column("NCC before", "ncc.before", "", 3, "correlation of the images in the foreground without the registration"),
    Column("NCC", "ncc.after", "", 3, "correlation of the images in the foreground after the registration"),
    Column("folds", "folding.whole_grid.folding_percent", "%", 4, "voxels where the field folds, |J| <= 0"),
    Column("std log|J|", "folding.whole_grid.std_log_jacobian", "", 3, "how much the change of volume varies"),
    Column("error", "end_point_error.foreground.mean_mm", "mm", 2, "mean distance from the true displacement"),
    Column("EDV", "end_diastolic_volume_ml.LV", "ml", 0, "volume of the left ventricle at end-diastole"),
    Column("ESV", "end_systolic_volume_ml.LV", "ml", 0, "volume of the left ventricle at end-systole"),
    Column("EF", EJECTION_FRACTION, "%", 1, "ejection fraction of the left ventricle"),
    Column("GCS", "peak_circumferential_percent.global", "%", 1, "peak global circumferential strain"),
    Column("GRS", "peak_radial_percent.global", "%", 1, "peak global radial strain"),
    Column("time", "seconds", "s", 1, "of all stages of the registration"),
)
SHOWN_ELSEWHERE = ("pair", "verdict", "score", "reasons", "seconds")
EVIDENCE = "evidence."
DISTANCES_MM = {
    "hausdorff_mm": "HD (mm)",
    "hausdorff95_mm": "HD95 (mm)",
    "surface_distance_mm": "ASSD (mm)",
}
INVERSE = {
    "covered part of the moving image, %": "covered_percent",
    "residual, mean, mm": "residual_mean_mm",
    "residual, largest, mm": "residual_max_mm",
    "not solved, %": "unsolved_percent",
}
CAVITIES = {
    "end-diastolic volume, ml": "end_diastolic_volume_ml.{}",
    "end-systolic volume, ml": "end_systolic_volume_ml.{}",
    "stroke volume, ml": "stroke_volume_ml.{}",
    "ejection fraction, %": "ejection_fraction_percent.{}",
}
PEAKS = {"circumferential": "peak_circumferential_percent.", "radial": "peak_radial_percent."}
DRAWN = (
    *("score", "dice.after.mean", "ncc.after", "folding.whole_grid.std_log_jacobian"),
    *(EJECTION_FRACTION, "peak_circumferential_percent.global", "seconds"),
)
UNKNOWN = "\N{EN DASH}"
FEWEST = 5  # values that make a distribution
BINS = 16
WIDTH, HEIGHT = 240, 90  # of a histogram, in the units of its drawing


def used_columns(entries: Sequence[Entry]) -> list[Column]:
    """Return the columns that some pair has."""
    return [column for column in COLUMNS if any(column.value(entry) is not None for entry in entries)]


@dataclass(frozen=True)
class Bar:
    """The pairs of one verdict whose values lie in one bin; places are in the units of the drawing."""

    x: float
    y: float
    width: float
    height: float
    verdict: str
    title: str


@dataclass(frozen=True)
class Histogram:
    """A distribution: its measure, bars, and the places and texts of the ticks below them."""

    column: Column
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    median: str
    count: int


def histograms(entries: Sequence[Entry]) -> list[Histogram]:
    """Return the distributions of the main measures that at least :data:`FEWEST` pairs have."""
    columns = [column for key in DRAWN for column in COLUMNS if column.key == key]
    found = [_histogram(column, entries) for column in columns]
    return [histogram for histogram in found if histogram is not None]


def _histogram(column: Column, entries: Sequence[Entry]) -> Histogram | None:
    known = [(value, entry.verdict) for entry in entries if (value := column.value(entry)) is not None]
    values = np.array([value for value, _ in known])
    if len(values) < FEWEST:
        return None
    step = _step(float(np.ptp(values)) or abs(float(values[0])) or 1.0)
    first = math.floor(values.min() / step + 1e-9)
    count = max(1, math.floor(values.max() / step + 1e-9) - first + 1)
    bins = np.clip(np.floor(values / step + 1e-9).astype(int) - first, 0, count - 1)
    highest = int(np.bincount(bins).max())
    width, unit = WIDTH / count, f" {column.unit}" if column.unit else ""
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    bars = []
    for index in range(count):
        low, high = ((first + index + more) * step for more in (0, 1))
        base = float(HEIGHT)
        for verdict in reversed(VERDICTS):
            number = sum(said == verdict for at, (_, said) in zip(bins, known) if at == index)
            if number:
                height = HEIGHT * number / highest
                base -= height
                title = f"{low:.{digits}f} to {high:.{digits}f}{unit}: {number} {verdict}"
                bars.append(Bar(index * width + 0.75, base, max(width - 1.5, 0.5), height, verdict, title))
    ticks = [(place * WIDTH, f"{(first + place * count) * step:.{digits}f}") for place in (0.0, 1.0)]
    return Histogram(column, bars, ticks, f"{np.median(values):.{column.digits}f}{unit}", len(values))


def _step(extent: float) -> float:
    """The width of a bin: 1, 2 or 5 times a power of ten, so that there are at most about :data:`BINS`."""
    power = 10.0 ** math.floor(math.log10(extent / BINS))
    return next(power * factor for factor in (1, 2, 5, 10) if extent / (power * factor) <= BINS)


@dataclass(frozen=True)
class Table:
    """Some measures of one pair: the titles of the columns, and each line with its name; all as text."""

    title: str
    columns: list[str]
    lines: list[tuple[str, list[str]]]


def tables_of(entry: Entry) -> list[Table]:
    """Return all measures of a pair or a cine; those that no other table has come last, by their keys."""
    row = {key: value for key, value in entry.row.items() if key not in SHOWN_ELSEWHERE}
    tables = [
        *(_of_cine(row) if entry.is_cine else _of_pair(row)),
        _table(
            row,
            "Evidence of the verdict",
            [""],
            {key.removeprefix(EVIDENCE).replace("_", " "): [key] for key in [*row] if key.startswith(EVIDENCE)},
        ),
        Table("Time", ["s"], [(key.replace("_", " "), [f"{value:.2f}"]) for key, value in entry.seconds.items()]),
    ]
    others = [(key.replace("_", " ").replace(".", ", "), [_text(value)]) for key, value in row.items()]
    return [table for table in (*tables, Table("Further measures", [""], others)) if table.lines]


def _of_pair(row: dict[str, Any]) -> list[Table]:
    times = ("before", "after")
    overlap = {key: title for key, title in {"dice": "Dice", **DISTANCES_MM}.items() if f"{key}.after.mean" in row}
    areas = {"whole_grid": "whole grid", "foreground": "foreground"}
    regularity = {title: f"folding.{{}}.{key}" for title, key in REGULARITY.items()}
    regularity["end-point error, mm"] = "end_point_error.{}.mean_mm"
    return [
        _table(
            row,
            "Labels",
            [f"{title} {when}" for title in overlap.values() for when in times],
            {c: [f"{key}.{when}.{c}" for key in overlap for when in times] for c in (*class_names(row), "mean")},
        ),
        _table(row, "Images", times, {t: [f"{t.lower()}.{when}" for when in times] for t in ("NCC", "RMSE")}),
        _table(
            row,
            "Displacement",
            list(areas.values()),
            {title: [key.format(area) for area in areas] for title, key in regularity.items()},
        ),
        _table(row, "Inverse", [""], {title: [f"inverse.{key}"] for title, key in INVERSE.items()}),
    ]


def _of_cine(row: dict[str, Any]) -> list[Table]:
    prefix = EJECTION_FRACTION.removesuffix("LV")
    cavities = [key.removeprefix(prefix) for key in row if key.startswith(prefix)]
    first = next(iter(PEAKS.values()))
    segments = [key.removeprefix(first) for key in row if key.startswith(first)]
    return [
        _table(row, "Volumes", cavities, {title: [key.format(c) for c in cavities] for title, key in CAVITIES.items()}),
        _table(row, "Peak strain, %", list(PEAKS), {name: [key + name for key in PEAKS.values()] for name in segments}),
    ]


def _table(row: dict[str, Any], title: str, columns: Sequence[str], lines: Mapping[str, Sequence[str]]) -> Table:
    """Take the values of a table, which has the keys of each line, out of the row."""
    found = [(name, [_text(row.pop(key, None)) for key in keys]) for name, keys in lines.items()]
    return Table(title, list(columns), [line for line in found if set(line[1]) != {UNKNOWN}])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if 0 < abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.4f}" if value else "0"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or UNKNOWN
    return UNKNOWN if value is None else str(value)
