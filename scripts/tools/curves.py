"""Draws the learning curves of the weights, from the TensorBoard files that ``models/train.sh`` writes.

python -m scripts.tools.curves

What ``scripts.tools.gpu.train`` trained afterwards has no such files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..support.bundle import BUNDLE_ROOT
from ..support.command_line import report_in_one_line
from ..support.errors import InputError
from ..support.files import replace_file

__all__ = ["draw_curves", "main", "read_curve"]

TRAININGS = {  # in order; each starts from the weights of the one before
    "cardiac": tuple(f"cardiac_{number}" for number in range(1, 8)),
    "hippocampus": ("hippocampus_first", "hippocampus_second"),
    "brain": ("brain",),
}
ROWS = {"loss": "training loss", "dice": "validation Dice"}

Curve = tuple[list[int], list[float]]


def read_curve(training: Path, tag: str) -> Curve:
    """Read epochs and values of a scalar from ``training/tensorboard``.

    Raises:
        InputError: when there is no such scalar.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    for path in sorted((training / "tensorboard").glob("events.*")):  # each writer has its own file
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        if tag in events.Tags()["scalars"]:
            values = events.Scalars(tag)
            return [event.step for event in values], [event.value for event in values]
    raise InputError(f"{training} has no curve '{tag}': expected the output folder of a training.")


def draw_curves(weights_dir: Path, path: Path) -> None:
    """Draw one column per model: loss and validation Dice over the epochs of all its trainings.

    Args:
        weights_dir: the folder with the output folders of the trainings.
        path: the PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained", dpi=100)
    axes = figure.subplots(len(ROWS), len(TRAININGS), sharex="col")
    for column, (model, trainings) in zip(axes.T, TRAININGS.items()):
        column[0].set_title(model)
        start = 0
        for index, name in enumerate(trainings):
            curves = {tag: read_curve(weights_dir / name, tag) for tag in ROWS}
            for axis, (epochs, values) in zip(column, curves.values()):
                axis.plot([start + epoch for epoch in epochs], values, f"C{index}.-", markersize=4, linewidth=1)
                axis.grid(alpha=0.3)
            start += curves["loss"][0][-1]
        column[-1].set(xlabel="epoch", xlim=(0, None))  # after the curves, otherwise it would hide them
    for axis, label in zip(axes[:, 0], ROWS.values()):
        axis.set_ylabel(label)
    replace_file(path, lambda temporary: figure.savefig(temporary, format="png"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.tools.curves", description=__doc__)
    parser.add_argument("--weights_dir", type=Path, default=Path(BUNDLE_ROOT) / "eval" / "weights")
    parser.add_argument("--output", type=Path, default=Path(BUNDLE_ROOT) / "docs" / "figures" / "curves.png")
    options = parser.parse_args(arguments)
    draw_curves(options.weights_dir, options.output)
    print(options.output)


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
