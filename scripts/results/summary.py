"""The results of many pairs: a table, statistics and plots."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cohorts.datalist import read_shard
from ..support.bundle import versions
from ..support.errors import InputError
from ..support.files import (
    finite,
    prepare_folder,
    read_record,
    remove_debris,
    replace_file,
    replace_files,
    sha256,
    user_path,
)
from .tables import REGULARITY, Row, class_names, column_values, measures_row, summary_table

__all__ = ["EvaluationSummary", "statistics", "write_csv"]

logger = logging.getLogger(__name__)

OUTPUTS = ("metrics.csv", "dice.png", "regularity.png", "summary.json")
HIGHER_IS_BETTER = ("dice.", "ncc.")
WORST = 0.3


class EvaluationSummary:
    """Writes ``metrics.csv`` (one row per pair), ``summary.json``, ``dice.png`` and ``regularity.png``; prints a table.

    Args:
        output_dir: the folder to write to.
        label_names: name of each class; classes without a name keep their number.
        weights: the file whose checksum goes into ``summary.json``; None if no network was used.
        about: information on what was evaluated, for ``summary.json``.
        overwrite: also replace files with these names that an evaluation did not write; results of an evaluation are
            always replaced.
        shard: the part of the pairs that is measured, as ``3/100``: its results go into a file of their own,
            ``shard_3_of_100.json``, from which ``scripts.collect`` makes these files; None means all pairs.
    """

    def __init__(
        self,
        output_dir: str | Path,
        label_names: Mapping[int, str] | None = None,
        weights: str | Path | None = None,
        about: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        shard: str | None = None,
    ) -> None:
        self.output_dir = user_path(output_dir, "output_dir")
        self.label_names = distinct_names(label_names or {})
        self.weights = None if weights is None else user_path(weights, "weights")
        self.about = dict(about or {})
        self.overwrite = overwrite
        self.part = None if shard is None else "shard_{}_of_{}.json".format(*read_shard(shard))

    def prepare(self) -> None:
        """Make the output folder, before anything is evaluated.

        Raises:
            InputError: when it cannot be written to, or has files with these names that an evaluation did not write.
        """
        if self.part:
            prepare_folder(self.output_dir)
            return
        there = [file for file in OUTPUTS if os.path.lexists(self.output_dir / file)]
        if there and not (self.overwrite or read_record(self.output_dir / "summary.json")):
            raise InputError(
                f"output_dir: {self.output_dir} has a file {there[0]} that no evaluation wrote: "
                "expected another folder, or --overwrite true."
            )
        prepare_folder(self.output_dir)

    def write(self, results: Sequence[Mapping[str, Any]], failures: Mapping[str, str], seconds: float) -> None:
        """Write all files, or none if one of them fails.

        Args:
            results: for each pair, its ``name``, ``metrics`` and the ``seconds`` of each stage.
            failures: for each pair that failed, by name, what went wrong.
            seconds: time for all pairs.
        """
        if self.part:
            self._write_part(self.part, results, failures, seconds)
            return
        rows = [
            measures_row(r["name"], finite({**r["metrics"], "verdict": r.get("verdict")}), self.label_names)
            for r in results
        ]
        columns = dict.fromkeys(column for row in rows for column in row)
        known = {column: column_values(rows, column) for column in columns}
        measures = {column: statistics(column, values) for column, values in known.items() if values}
        stages = {stage: float(np.mean([r["seconds"][stage] for r in results])) for stage in results[0]["seconds"]}
        summary = {
            **self.about,
            "pairs": len(rows),
            "failed": dict(failures),
            "verdicts": Counter(row["verdict"] for row in rows if "verdict" in row),
            "weights": self.weights and {"file": str(self.weights.resolve()), "sha256": sha256(self.weights)},
            "versions": versions(),
            "seconds": {"all_pairs": seconds, "mean_of_a_pair": stages},
            "measures": measures,
        }
        remove_debris(self.output_dir)
        with replace_files(self.output_dir, OUTPUTS) as temporary:
            write_csv(rows, list(columns), temporary / "metrics.csv")
            (temporary / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
            _draw_regularity(rows, temporary / "regularity.png")
            if class_names(measures):
                _draw_dice(rows, class_names(measures), temporary / "dice.png")
        print(f"\n{summary_table(measures)}\n")
        logger.info("measured %d pairs, failed %d: results in %s", len(rows), len(failures), self.output_dir)

    def _write_part(
        self, file: str, results: Sequence[Mapping[str, Any]], failures: Mapping[str, str], seconds: float
    ) -> None:
        content = {
            **{"results": [finite(dict(result)) for result in results], "failed": dict(failures), "seconds": seconds},
            **{"about": self.about, "label_names": self.label_names, "versions": versions()},
            "weights": self.weights and str(self.weights.resolve()),
        }
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        replace_file(self.output_dir / file, lambda path: path.write_text(text))
        logger.info("measured %d pairs, failed %d: %s", len(results), len(failures), self.output_dir / file)


def distinct_names(label_names: Mapping[int, str]) -> dict[str, str]:
    """A name of its own for each class, by its number as text, where several classes share one name or it is taken."""
    counts = Counter(label_names.values())
    plain = {name for name, count in counts.items() if count == 1 and name and name != "mean" and not name.isdecimal()}
    return {
        str(number): name if name in plain else f"{name} ({number})".strip() for number, name in label_names.items()
    }


def statistics(column: str, values: Sequence[float]) -> dict[str, float]:
    """Return statistics of one measure over many pairs.

    ``worst_30_percent`` is the mean over the worst 30 % of the pairs, rounded up: the lowest values of Dice and
    correlation, the highest values of all other measures. The standard deviation is that of these pairs.
    """
    ordered = np.sort(values)
    if not column.startswith(HIGHER_IS_BETTER):
        ordered = ordered[::-1]
    return {
        "mean": float(ordered.mean()),
        "std": float(ordered.std()),
        "median": float(np.median(ordered)),
        "worst_30_percent": float(ordered[: math.ceil(WORST * len(ordered))].mean()),
        "count": len(ordered),
    }


def write_csv(rows: Sequence[Row], columns: Sequence[str], path: Path) -> None:
    """Write a CSV file with six digits; undefined values are empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})


def _draw_dice(rows: Sequence[Row], classes: Sequence[str], path: Path) -> None:
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(7, 1.5 + 0.45 * len(classes)), layout="constrained", dpi=120)
    axis = figure.subplots()
    for offset, (when, color) in enumerate((("before", "lightgray"), ("after", "tab:blue"))):
        values = [column_values(rows, f"dice.{when}.{name}") for name in classes]
        positions = [index + 0.36 * (offset - 0.5) for index in range(len(classes))]
        style: Any = {
            "boxprops": {"facecolor": color},
            "medianprops": {"color": "black"},
            "flierprops": {"markersize": 3},
        }
        axis.boxplot(
            values, positions=positions, widths=0.3, patch_artist=True, orientation="horizontal", label=when, **style
        )
    axis.set_yticks(range(len(classes)), classes)
    axis.invert_yaxis()
    axis.set(xlabel="Dice", xlim=(0, 1), title=f"{len(rows)} pairs")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, format="png")


def _draw_regularity(rows: Sequence[Row], path: Path) -> None:
    """Draw one point per pair; without labels, accuracy is the correlation of the images."""
    from matplotlib.figure import Figure

    title, measure = ("mean Dice", "dice.after.mean")
    if not column_values(rows, measure):
        title, measure = "correlation", "ncc.after"
    figure = Figure(figsize=(8, 4), layout="constrained", dpi=120)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name in zip(axes, ("|J| <= 0, %", "std log|J|")):
        column = f"folding.whole_grid.{REGULARITY[name]}"
        points = [(row[column], row[measure]) for row in rows if None not in (row.get(column), row.get(measure))]
        axis.plot(*zip(*points), "o", markersize=4, alpha=0.6)
        axis.set(xlabel=f"{name} (whole grid)")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(title)
    figure.suptitle(f"Accuracy against regularity, {len(rows)} pairs")
    figure.savefig(path, format="png")
