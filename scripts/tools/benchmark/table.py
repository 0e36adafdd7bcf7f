"""Summaries of each method over all pairs: means with intervals, tests, a table and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from ...results.tables import Row, class_names, column_values
from ...support.bundle import versions
from ...support.files import finite, replace_file
from .machine import describe_machine

__all__ = ["bootstrap_interval", "compare", "summarize", "write_results"]

RESAMPLES = 10_000
TOOLS = ("SimpleITK", "picsl-greedy", "antspyx", "scipy")
DICE, FOLDING = "dice.after.mean", "folding.whole_grid"
REFERENCE, UNREGISTERED = "Greedy", "unregistered"
MARKERS = "osD^v<>PX*hp"
SMALLEST_FOLDING = 1e-3  # percent; the axis is linear below it, so that it can show 0

Summary = dict[str, Any]


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean; the resampled pairs are always the same."""
    array = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def compare(values: Sequence[float], reference: Sequence[float]) -> Summary:
    """Compare with the reference on the same pairs: mean difference, its 95 % interval, two-sided Wilcoxon p."""
    differences = np.asarray(values, dtype=float) - np.asarray(reference, dtype=float)
    p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return {"mean": float(differences.mean()), "interval": bootstrap_interval(differences.tolist()), "p": p}


def summarize(rows: Mapping[str, Sequence[Row]]) -> list[Summary]:
    """Summarize each method in one dictionary.

    Times and Dice are compared with the reference: the Greedy setting with the best mean Dice.

    Args:
        rows: the rows of each method, in the same order of pairs.
    """
    dice = {name: column_values(of_method, DICE) for name, of_method in rows.items()}
    reference = max((name for name in rows if name.startswith(REFERENCE)), key=lambda n: np.mean(dice[n]), default=None)
    base = float(np.median(column_values(rows[reference], "cpu_s"))) if reference else None
    return [
        {
            "method": name,
            "settings": of_method[0]["settings"],
            "pairs": len(of_method),
            "dice": {"mean": float(np.mean(dice[name])), "interval": bootstrap_interval(dice[name])},
            "dice_of_class": {c: _mean(of_method, f"dice.after.{c}") for c in class_names(of_method[0])},
            "folding_percent": _mean(of_method, f"{FOLDING}.folding_percent"),
            "ndv_percent": _mean(of_method, f"{FOLDING}.ndv_percent"),
            "std_log_jacobian": _mean(of_method, f"{FOLDING}.std_log_jacobian"),
            "median_cpu_seconds": float(np.median(column_values(of_method, "cpu_s"))),
            "median_wall_seconds": float(np.median(column_values(of_method, "wall_s"))),
            "cpu_seconds_of_reference": base and float(np.median(column_values(of_method, "cpu_s"))) / base,
            "peak_mib": next(iter(column_values(of_method, "peak_mib")), None),
            "parameters": next((int(value) for value in column_values(of_method, "parameters")), None),
            "dice_minus_reference": compare(dice[name], dice[reference]) if reference not in (None, name) else None,
        }
        for name, of_method in rows.items()
    ]


def write_results(rows: Mapping[str, Sequence[Row]], task: str, output_dir: Path) -> None:
    """Write ``table.md``, ``summary.json``, ``dice_time.png`` and ``dice_folding.png``, and print the table.

    Args:
        rows: the rows of each method, in the same order of pairs.
        task: name of the task.
        output_dir: the folder to write to.
    """
    methods = summarize(rows)
    known = versions() | {name: number for name in TOOLS if (number := _version(name))}
    machine = describe_machine()
    table = _markdown(methods, task, f"{machine}; {', '.join(f'{name} {number}' for name, number in known.items())}")
    content = {"task": task, "machine": machine, "versions": known, "methods": [finite(method) for method in methods]}
    replace_file(output_dir / "table.md", lambda path: path.write_text(table))
    replace_file(output_dir / "summary.json", lambda path: path.write_text(json.dumps(content, indent=2) + "\n"))
    for name, key, title in (
        ("dice_time.png", "median_cpu_seconds", "CPU seconds per pair, median"),
        ("dice_folding.png", "folding_percent", "voxels with |J| <= 0, %"),
    ):
        figure = _draw(methods, key, title, task)
        replace_file(output_dir / name, lambda path, figure=figure: figure.savefig(path, format="png"))  # type: ignore[misc]
    print(f"\n{table}")


def _markdown(methods: Sequence[Summary], task: str, tools: str) -> str:
    classes = list(dict.fromkeys(c for method in methods for c in method["dice_of_class"]))
    titles = [
        "method",
        "Dice [95 %]",
        *classes,
        "folding %",
        "NDV %",
        "std log\\|J\\|",
        "CPU s",
        "CPU s / Greedy",
        "peak MiB",
    ]
    titles += ["parameters", "Dice - Greedy [95 %]", "p"]
    lines = [titles, ["---"] * len(titles), *(_cells(method, classes) for method in methods)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    settings = "\n".join(f"- {method['method']}: {method['settings']}" for method in methods)
    return f"""# {task}, {methods[0]["pairs"]} pairs

{table}

The values are means over pairs, on the grid of the networks. The intervals are from {RESAMPLES:,} bootstrap resamples
of the pairs. Folding (voxels with |J| <= 0), NDV and std log|J| are measured on the whole grid. CPU s is the median
per pair, on one thread. Greedy is the Greedy setting with the best Dice; p is a two-sided Wilcoxon signed-rank test
against it. Peak is the growth of the process while it registers one pair.

{settings}

{tools}
"""


def _cells(method: Summary, classes: Sequence[str]) -> list[str]:
    difference = method["dice_minus_reference"]
    return [
        method["method"],
        _with_interval(method["dice"], ""),
        *(_number(method["dice_of_class"].get(c), ".3f") for c in classes),
        *(_number(method[key], ".4f") for key in ("folding_percent", "ndv_percent")),
        _number(method["std_log_jacobian"], ".3f"),
        _number(method["median_cpu_seconds"], ".3g"),
        _number(method["cpu_seconds_of_reference"], ".3g"),
        _number(method["peak_mib"], ".0f"),
        _number(method["parameters"], ",d"),
        _with_interval(difference, "+") if difference else "-",
        _number(difference and difference["p"], ".2g"),
    ]


def _with_interval(value: Summary, sign: str) -> str:
    low, high = value["interval"]
    return f"{value['mean']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _mean(rows: Sequence[Row], column: str) -> float | None:
    values = column_values(rows, column)
    return float(np.mean(values)) if values else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _draw(methods: Sequence[Summary], key: str, title: str, task: str) -> Any:
    """Plot mean Dice with its interval against another measure, one marker per method; the title has "unregistered"."""
    from matplotlib.figure import Figure  # slow to import, and only needed here
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(8, 4.5), layout="constrained", dpi=120)
    axis = figure.subplots()
    for index, method in enumerate(method for method in methods if method["method"] != UNREGISTERED):
        mean, (low, high) = method["dice"]["mean"], method["dice"]["interval"]
        axis.errorbar(
            method[key],
            mean,
            yerr=[[mean - low], [high - mean]],
            fmt=MARKERS[index % len(MARKERS)],
            color=f"C{index % 10}",
            markersize=7,
            elinewidth=1,
            label=method["method"],
        )
    if key == "folding_percent":
        axis.set_xscale("symlog", linthresh=SMALLEST_FOLDING)
        axis.set_xlim(left=-SMALLEST_FOLDING / 4)
    else:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    before = [f", unregistered {m['dice']['mean']:.3f}" for m in methods if m["method"] == UNREGISTERED]
    about = f"{task}, {methods[0]['pairs']} pairs{''.join(before)}"
    axis.set(xlabel=title, ylabel="mean Dice", title=about)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    return figure
