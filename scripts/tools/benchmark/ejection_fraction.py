"""Compares the ejection fraction of carried labels with that of the labels that experts drew at end-systole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from ...heart import TrackedCine, label_names, read_cine, register_frames, track
from ...heart.cine import CAVITY
from ...heart.departure import areas
from ...images.loading import open_image
from ...registration import Registration
from ...results.measures import dice_per_class
from ...results.tables import text_table

__all__ = ["Agreement", "agreement", "limits", "print_ejection_fractions"]

COLUMNS = ("patients", "number", "difference", "from", "to", "difference (both)", "from", "to", "Dice")
LIMITS = 1.96  # standard deviations


@dataclass(frozen=True)
class Agreement:
    """Ejection fractions of one heart in percent.

    Args:
        carried: by the label that was carried to end-systole.
        expert: by the labels of both frames.
        carried_both: the first, in the slices in which the cavity is labelled in both frames.
        expert_both: the second, in these slices.
        dice: mean Dice of the carried label.
    """

    carried: float
    expert: float
    carried_both: float
    expert_both: float
    dice: float


def print_ejection_fractions(data: Path, figure: Path) -> None:
    """Print mean difference and limits of agreement of ACDC's patients, and draw them as Bland and Altman do.

    The settings of the tracking were chosen with the patients of odd number in view.

    Args:
        data: the folder of ACDC.
        figure: the PNG to write.
    """
    registration = Registration.load("cardiac")
    found = {}
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        found[int(folder.name.removeprefix("patient"))] = each = agreement(folder, registration)
        print(folder.name, *(f"{value:.3g}" for value in vars(each).values()), flush=True)
    groups = {
        "odd": {n: each for n, each in found.items() if n % 2},
        "even": {n: each for n, each in found.items() if n % 2 == 0},
        "all": found,
    }
    rows = [(name, _row(group)) for name, group in groups.items() if group]
    print(text_table(COLUMNS, rows, [0, *[1] * 6, 3]))
    _draw(groups, figure)


def agreement(folder: Path, registration: Registration) -> Agreement:
    """Measure one patient of ACDC: the label of end-diastole is carried to end-systole.

    Args:
        folder: the folder of the patient.
        registration: registers the frames.
    """
    names = label_names("acdc")
    images, labels = (
        [open_image(next(folder.glob(f"*_{frame}{end}.nii.gz")), "image") for frame in ("ED", "ES")]
        for end in ("", "_gt")
    )
    frames = np.stack([np.asarray(image.dataobj, np.float32) for image in images], -1)
    cine = read_cine(nib.Nifti1Image(frames, images[0].affine), labels[0], 0, names)
    tracked = track(cine, partial(register_frames, registration))
    drawn = [np.asarray(label.dataobj).round().astype(int) for label in labels]
    cavity = next(value for value, name in names.items() if name == CAVITY)
    expert = [np.count_nonzero(label == cavity, axis=(0, 1)) for label in drawn]
    carried = [_in_slices(tracked, frame) for frame in range(2)]
    both = (expert[0] > 0) & (expert[1] > 0)
    pair = torch.from_numpy(drawn[1]), torch.from_numpy(tracked.carry_label(1))
    return Agreement(
        carried=_fraction(*carried),
        expert=_fraction(*expert),
        carried_both=_fraction(*(area[both] for area in carried)),
        expert_both=_fraction(*(area[both] for area in expert)),
        dice=dice_per_class(*pair, list(names))["mean"],
    )


def _fraction(diastole: np.ndarray, systole: np.ndarray) -> float:
    """The ejection fraction in percent of areas in slices."""
    return 100 * float(1 - systole.sum() / diastole.sum())


def _in_slices(tracked: TrackedCine, frame: int) -> np.ndarray:
    """The area of the cavity in each slice of a frame, in voxels, (Z,)."""
    cavity = tracked.cine.mask(CAVITY)
    assert cavity is not None
    result = np.where(cavity, areas(tracked.ddf[frame]).numpy(), 0).sum((0, 1))
    if frame in tracked.departed:
        result[tracked.departed[frame]] = 0
    return np.asarray(result)


def _row(group: Mapping[int, Agreement]) -> list[float | None]:
    pairs = [
        [each.carried - each.expert for each in group.values()],
        [each.carried_both - each.expert_both for each in group.values()],
    ]
    return [len(group), *limits(pairs[0]), *limits(pairs[1]), float(np.mean([each.dice for each in group.values()]))]


def limits(differences: list[float]) -> tuple[float, float, float]:
    """Return the mean of differences and their limits of agreement (Bland and Altman, The Lancet 1986)."""
    mean, spread = float(np.mean(differences)), LIMITS * float(np.std(differences, ddof=1))
    return mean, mean - spread, mean + spread


def _draw(groups: Mapping[str, Mapping[int, Agreement]], path: Path) -> None:
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=110)
    axis = figure.add_subplot()
    for name, marker in (("odd", "x"), ("even", "o")):
        values = np.array([[each.carried, each.expert] for each in groups[name].values()])
        label = f"{len(values)} patients of {name} number"
        axis.scatter(values.mean(1), values[:, 0] - values[:, 1], marker=marker, s=24, alpha=0.8, label=label)
    mean, low, high = limits([each.carried - each.expert for each in groups["all"].values()])
    for value, style, text in ((mean, "-", "mean"), (low, "--", "limits of agreement"), (high, "--", "")):
        axis.axhline(value, color="gray", linewidth=1, linestyle=style, label=text or None)
        axis.annotate(
            f"{value:.1f}", (1, value), xycoords=("axes fraction", "data"), fontsize=8, va="bottom", ha="right"
        )
    axis.set(xlabel="mean of both ejection fractions, %", ylabel="carried label minus expert, points")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, format="png", metadata={"Software": None})
