"""Commands for the studies of the paper. Each trains and evaluates with the configs, and writes a table and a plot.

    python -m scripts.studies data_efficiency --dataset_dir DIR --limits 1 5 25% 100% --output_dir OUT
    python -m scripts.studies domain_shift --datasets DIR_A DIR_B --output_dir OUT

An interrupted study continues when the same command runs again.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .support.bundle import BUNDLE_ROOT
from .support.command_line import report_in_one_line
from .support.errors import InputError
from .support.files import replace_files

__all__ = ["data_efficiency", "domain_shift", "main"]

MEASURES = {
    "dice_before": "dice.before.mean",
    "dice": "dice.after.mean",
    "folding_percent": "folding.whole_grid.folding_percent",
    "std_log_jacobian": "folding.whole_grid.std_log_jacobian",
}
Result = dict[str, Any]


class Study:
    """Trains and evaluates methods: ``gradirn`` is ``train.yaml`` itself, other methods are names of overlays.

    Args:
        output_dir: where each training and each evaluation has its own folder.
        overlays: overlays for all methods, such as ``hippocampus``.
        train_options: command-line options for ``train.yaml``.
        evaluate_options: command-line options for ``evaluate.yaml``.
    """

    def __init__(
        self, output_dir: Path, overlays: Sequence[str], train_options: Sequence[str], evaluate_options: Sequence[str]
    ) -> None:
        self.output_dir = output_dir
        self.overlays = list(overlays)
        self.train_options = list(train_options)
        self.evaluate_options = list(evaluate_options)

    def train(self, name: str, method: str, dataset_dir: str, *options: str) -> Path:
        """Train, or continue an interrupted training; return the path of the weights."""
        folder = self.output_dir / name / "train"
        self._run(
            ["train", *self._methods_overlays(method)],
            *("--dataset_dir", dataset_dir, "--output_dir", str(folder), "--resume", "true"),
            *(*self.train_options, *options),
        )
        return folder / "model.pt"

    def evaluate(self, name: str, method: str, dataset_dir: str, weights: Path) -> Result:
        """Return the means over the pairs of a data set's test subjects."""
        folder = self.output_dir / name
        self._run(
            ["evaluate", *self._methods_overlays(method)],
            *("--dataset_dir", dataset_dir, "--weights", str(weights), "--output_dir", str(folder)),
            *("--subset", "test", "--surfaces", "false", *self.evaluate_options),
        )
        measures = json.loads((folder / "summary.json").read_text())["measures"]
        return {key: measures[measure]["mean"] for key, measure in MEASURES.items() if measure in measures}

    def write(self, results: Sequence[Result], figure: Any, name: str) -> None:
        """Write ``<name>.csv`` and ``<name>.png`` and print the table."""
        columns = list(dict.fromkeys(key for result in results for key in result))
        files = [f"{name}.csv", f"{name}.png"]
        with replace_files(self.output_dir, files) as temporary:
            with (temporary / files[0]).open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(results)
            figure.savefig(temporary / files[1], format="png", dpi=120)
        print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for result in results:
            print(f"| {' | '.join(_text(result.get(column)) for column in columns)} |")
        print("", *(self.output_dir / file for file in files), sep="\n")

    def _methods_overlays(self, method: str) -> list[str]:
        return self.overlays + ([] if method == "gradirn" else [method])

    def _run(self, configs: Sequence[str], *options: str) -> None:
        files = [str(Path(BUNDLE_ROOT) / "configs" / f"{config}.yaml") for config in configs]
        for file in files:
            if not Path(file).is_file():
                raise InputError(f"{file} does not exist: expected a method or an overlay with a file in configs/.")
        command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", str(files), *options]
        if subprocess.run(command).returncode != 0:
            raise InputError(f"a step of the study failed, see above: {shlex.join(command)}")


def data_efficiency(study: Study, methods: Sequence[str], dataset_dir: str, limits: Sequence[str]) -> None:
    """Train on more and more subjects, with equally long epochs, and evaluate on the test subjects."""
    results = []
    for method in methods:
        for limit in limits:
            name = f"{method}_{limit.replace('%', '_percent')}"
            weights = study.train(name, method, dataset_dir, "--train_limit", limit)
            measures = study.evaluate(f"{name}/test", method, dataset_dir, weights)
            results.append({"method": method, "subjects": limit, **measures})
    study.write(results, _plot_lines(results, limits), "data_efficiency")


def domain_shift(study: Study, methods: Sequence[str], datasets: Sequence[str]) -> None:
    """Train on each data set, and evaluate on the test subjects of all: the same pairs for all trainings."""
    names = [Path(dataset).resolve().name for dataset in datasets]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise InputError(f"--datasets are {', '.join(names)}: expected two or more folders with different names.")
    results = []
    for method in methods:
        for trained_on, dataset_dir in zip(names, datasets):
            weights = study.train(f"{method}_{trained_on}", method, dataset_dir)
            for tested_on, other in zip(names, datasets):
                measures = study.evaluate(f"{method}_{trained_on}/{tested_on}", method, other, weights)
                results.append({"method": method, "trained on": trained_on, "tested on": tested_on, **measures})
    study.write(results, _plot_bars(results, names), "domain_shift")


def _plot_lines(results: Sequence[Result], limits: Sequence[str]) -> Any:
    """Plot Dice and folding against the number of training subjects, one line per method."""
    figure, (dice, folding) = _axes()
    for method, rows in _by(results, "method"):
        for axis, key in ((dice, "dice"), (folding, "folding_percent")):
            axis.plot([row["subjects"] for row in rows], [row[key] for row in rows], marker="o", label=method)
    before = results[0].get("dice_before")
    if before is not None:
        dice.axhline(before, color="gray", linestyle=":", label="unregistered")
    for axis in (dice, folding):
        axis.set_xlabel("training subjects")
    dice.legend()
    return figure


def _plot_bars(results: Sequence[Result], names: Sequence[str]) -> Any:
    """Plot Dice and folding on each data set, one bar per method and training set."""
    figure, axes = _axes()
    series = list(_by(results, "method", "trained on"))
    for index, (label, rows) in enumerate(series):
        places = [place + 0.8 * (index - (len(series) - 1) / 2) / len(series) for place in range(len(names))]
        for axis, key in zip(axes, ("dice", "folding_percent")):
            axis.bar(places, [row[key] for row in rows], width=0.8 / len(series), label=label)
    for axis in axes:
        axis.set_xticks(range(len(names)), names)
        axis.set_xlabel("tested on")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="trained on", loc="outside upper center", ncols=4)
    return figure


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    axes[0].set_ylabel("mean Dice")
    axes[1].set_ylabel("|J| <= 0, %")
    return figure, axes


def _by(results: Sequence[Result], *keys: str) -> Iterator[tuple[str, list[Result]]]:
    """Group results by the values of these keys; yield the label and the results of each group."""
    for label in dict.fromkeys(" ".join(result[key] for key in keys) for result in results):
        yield label, [result for result in results if " ".join(result[key] for key in keys) == label]


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.studies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="study", required=True)
    efficiency = commands.add_parser("data_efficiency", help="train on few subjects")
    efficiency.add_argument("--dataset_dir", required=True)
    efficiency.add_argument("--limits", nargs="+", required=True, help="numbers or percentages: 1 5 25%% 100%%")
    shift = commands.add_parser("domain_shift", help="train on one data set, test on another")
    shift.add_argument("--datasets", nargs="+", required=True)
    for command in (efficiency, shift):
        command.add_argument("--output_dir", required=True, type=Path)
        command.add_argument("--methods", nargs="+", default=["gradirn"], help="gradirn, voxelmorph, published")
        command.add_argument("--overlays", nargs="+", default=[], help="overlays for all methods: hippocampus or brain")
        command.add_argument(
            "--train_options", default="", help="options for train.yaml, in one text: '--max_epochs 20 ...'"
        )
        command.add_argument("--evaluate_options", default="", help="options for evaluate.yaml, in one text")
    options = parser.parse_args(arguments)
    study = Study(
        options.output_dir.expanduser().resolve(),
        options.overlays,
        shlex.split(options.train_options),
        shlex.split(options.evaluate_options),
    )
    if options.study == "data_efficiency":
        data_efficiency(study, options.methods, options.dataset_dir, options.limits)
    else:
        domain_shift(study, options.methods, options.datasets)


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
