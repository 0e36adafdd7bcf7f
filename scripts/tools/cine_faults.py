"""Counts the verdicts on good cines of hearts, and on cines with a planted fault.

python -m scripts.tools.cine_faults --set chosen

Good are the real end-diastolic and end-systolic frames of each patient, as a cine of two frames, and cines of known
motion of a few patients, see :mod:`scripts.tools.cines`. Each of these few gets each fault, with the next one of the
same data set as the other patient. The chosen set is ACDC's patients of odd number and Sunnybrook, whose labels have no
wall; the reported one is ACDC's patients of even number. Each cell of the table is good / doubtful / failed.

A second table counts, for the real frames, the warnings that a label belongs to another frame than is said.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch

from ..heart import label_names, read_cine
from ..heart.cine import MYOCARDIUM
from ..heart.verdict import judge_cine
from ..images.loading import open_image
from ..registration import Registration
from ..support.command_line import report_in_one_line
from ..support.errors import InputError
from ..support.notices import collect_warnings
from ..verdict import Verdict
from ..verdict.judge import LEVELS
from .cines import Motion, cut_out_heart, make_cine, still_cine, true_motion
from .faults import fit
from .verdicts import DATA, Pair, pairs_of

__all__ = ["FAULTS", "Heart", "known_motion", "on_grid_of"]

FRAMES = 12  # of a cine of known motion: as few as are judged as a whole cycle
WALL = 9.0  # mm, drawn around a cavity without a wall for the motion, and not shown to the tracking
RANGES = {"shortening": (0.06, 0.24), "rotation": (2.0, 10.0), "through_plane": (0.0, 6.0)}  # of known motions
EMPTY = 0.01  # standard deviation of what a frame with next to nothing shows, as a part of that of the cine
NOT_COUNTED = "its header has no orientation"  # a warning about all of ACDC


class Heart(NamedTuple):
    """A beating heart.

    Attributes:
        frames: (X, Y, Z, T).
        label: the label map of the first frame, (X, Y, Z).
        affine: of both.
        layout: the data-set layout that names the ids of the label.
    """

    frames: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    layout: str = "acdc"


Table = Mapping[str, Mapping[str, str]]
Fault = Callable[[Heart, Heart, np.random.Generator], Heart]
"""Maps a heart, that of another patient on the same grid, and a generator to a cine with a fault."""


def shuffled(heart: Heart, other: Heart, random: np.random.Generator) -> Heart:
    """All frames but the first in another order."""
    order = 1 + random.permutation(heart.frames.shape[3] - 1)
    return heart._replace(frames=heart.frames[..., [0, *order]])


def foreign_frame(heart: Heart, other: Heart, random: np.random.Generator) -> Heart:
    """One frame of another patient."""
    return _replaced(heart, other.frames, slice(None), _any_frame(heart, random))


def foreign_half_frame(heart: Heart, other: Heart, random: np.random.Generator) -> Heart:
    """Half of the slices of one frame of another patient."""
    return _replaced(heart, other.frames, _half(heart, random), _any_frame(heart, random))


def noisy_frame(heart: Heart, other: Heart, random: np.random.Generator) -> Heart:
    """One frame of noise."""
    noise = np.abs(random.standard_normal(heart.frames.shape)) * heart.frames.std()
    return _replaced(heart, noise, slice(None), _any_frame(heart, random))


def empty_frame(heart: Heart, other: Heart, random: np.random.Generator) -> Heart:
    """One frame with next to nothing: a little noise, as one without any is refused."""
    level, spread = heart.frames.mean(), heart.frames.std()
    nothing = level + EMPTY * spread * random.standard_normal(heart.frames.shape)
    return _replaced(heart, nothing, slice(None), _any_frame(heart, random))


def foreign_slices(heart: Heart, other: Heart, random: np.random.Generator) -> Heart:
    """Half of the slices, in all frames, of another patient."""
    return _replaced(heart, other.frames, _half(heart, random), slice(None))


def foreign_label(heart: Heart, other: Heart, random: np.random.Generator) -> Heart:
    """The label of another patient."""
    return heart._replace(label=other.label)


def half_cycle(heart: Heart, other: Heart, random: np.random.Generator) -> Heart:
    """The first half of the cycle."""
    return heart._replace(frames=heart.frames[..., : heart.frames.shape[3] // 2 + 1])


FAULTS: dict[str, Fault] = {
    "frames in another order": shuffled,
    "one frame of another patient": foreign_frame,
    "half of the slices of one frame of another patient": foreign_half_frame,
    "one frame of noise": noisy_frame,
    "one frame with next to nothing": empty_frame,
    "half of the slices, in all frames, of another patient": foreign_slices,
    "the label of another patient": foreign_label,
    "the first half of the cycle": half_cycle,
}


def known_motion(image: Path, label: Path, layout: str, number: int) -> Heart:
    """Return a heart with a random motion by the law of :mod:`scripts.tools.cines`, with the ids of ACDC.

    Args:
        image: the end-diastolic frame.
        label: its label map.
        layout: the layout of its ids.
        number: the seed.
    """
    random = np.random.default_rng(number)
    motion = Motion(FRAMES, **{name: float(random.uniform(*ends)) for name, ends in RANGES.items()}, seed=number)
    names = label_names("acdc")
    opened, labelled = cut_out_heart(image, label, layout, WALL)
    truth = true_motion(read_cine(still_cine(opened), labelled, 0, names), motion)
    ids = np.asarray(labelled.dataobj).copy()
    if MYOCARDIUM not in label_names(layout).values():
        ids[ids == next(value for value, name in names.items() if name == MYOCARDIUM)] = 0
    return Heart(make_cine(truth, motion), ids, opened.affine)


def on_grid_of(other: Heart, heart: Heart) -> Heart:
    """Return another heart in the middle of the grid of a heart, with the mean and the spread of its intensities."""
    slices = np.linspace(0, other.label.shape[2] - 1, heart.label.shape[2]).round().astype(int)
    frames = fit(other.frames[:, :, slices], heart.frames.shape)
    frames = (frames - frames.mean()) / frames.std() * heart.frames.std() + heart.frames.mean()
    return Heart(frames, fit(other.label[:, :, slices], heart.label.shape), heart.affine)


def real_frames(pair: Pair, layout: str) -> Heart:
    """Return both frames of a pair as they are, with the label of the fixed one."""
    fixed, moving = (open_image(path, "image") for path in (pair.fixed, pair.moving))
    frames = np.stack([np.asarray(image.dataobj, np.float32) for image in (fixed, moving)], -1)
    return Heart(frames, np.asarray(open_image(pair.label_fixed, "label").dataobj), fixed.affine, layout)


def hearts_of(pairs: Sequence[Pair], layout: str, patients: int) -> Iterator[tuple[str, str, Heart]]:
    """Yield the good and the faulty cines of a data set: what is done to them, the patient, and the heart.

    What is random depends on the place of the patient among the pairs, and on the fault.
    """
    for pair in pairs:
        yield "real end-diastole and end-systole", pair.fixed.parent.name, real_frames(pair, layout)
    few = np.linspace(0, len(pairs) - 1, patients).round().astype(int).tolist()
    hearts = [known_motion(pairs[n].fixed, pairs[n].label_fixed, layout, n) for n in few]
    for n, heart, next_heart in zip(few, hearts, [*hearts[1:], hearts[0]]):
        patient = pairs[n].fixed.parent.name
        yield "known motion", patient, heart
        other = on_grid_of(next_heart, heart)
        for kind, (name, fault) in enumerate(FAULTS.items()):
            yield name, patient, fault(heart, other, np.random.default_rng([n, kind]))


def judge(register: Registration, heart: Heart) -> Verdict:
    """Track a heart and judge it, without the warning that its header has no orientation."""
    tracked = register.track(*_images(heart), 0, heart.layout)
    return judge_cine(tracked.evidence, [text for text in tracked.warnings if NOT_COUNTED not in text])


def count_verdicts(register: Registration, sets: Mapping[str, Sequence[Pair]], patients: int) -> Table:
    """Return a row for each kind of cine, and a column for each data set: how many are good, doubtful and failed."""
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for layout, pairs in sets.items():
        for kind, patient, heart in hearts_of(pairs[::2], layout, patients):  # from end-diastole to end-systole
            verdict = judge(register, heart)
            counts[kind][layout][verdict.verdict] += 1
            print(f"{patient}, {kind}: {verdict.describe()}", file=sys.stderr, flush=True)
    return {
        kind: {layout: " / ".join(str(found[level]) for level in LEVELS) for layout, found in row.items()}
        for kind, row in counts.items()
    }


def count_warnings(sets: Mapping[str, Sequence[Pair]]) -> Table:
    """Return how often a label, called that of its own frame or of the other one, is warned to fit another frame."""
    labels = "end-diastole", "end-systole"  # of the fixed images, in turn
    table: dict[str, dict[str, str]] = defaultdict(dict)
    for layout, pairs in sets.items():
        for n, name in enumerate(labels):
            hearts = [real_frames(pair, layout) for pair in pairs[n::2]]
            for said in (0, 1):
                warned = sum(_fits_another(heart, said) for heart in hearts)
                table[f"label of {name}, called {labels[n ^ said]}"][layout] = f"{warned} of {len(hearts)}"
    return table


def _fits_another(heart: Heart, frame: int) -> bool:
    texts: list[str] = []
    with collect_warnings(texts):
        read_cine(*_images(heart), frame, label_names(heart.layout))
    return any("--label_frame" in text for text in texts)


def _images(heart: Heart) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    return nib.Nifti1Image(heart.frames.astype(np.float32), heart.affine), nib.Nifti1Image(heart.label, heart.affine)


def _markdown(table: Table) -> str:
    columns = list(next(iter(table.values())))
    rows = [["", *columns], ["---"] * (1 + len(columns)), *([name, *row.values()] for name, row in table.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _any_frame(heart: Heart, random: np.random.Generator) -> int:
    """Any frame but that of the label."""
    return int(random.integers(1, heart.frames.shape[3]))


def _half(heart: Heart, random: np.random.Generator) -> slice:
    """The slices of one half."""
    half = heart.frames.shape[2] // 2
    return slice(half) if random.random() < 0.5 else slice(half, None)


def _replaced(heart: Heart, values: np.ndarray, slices: slice, frames: int | slice) -> Heart:
    """Take some slices of some frames from others, (X, Y, Z, T)."""
    result = heart.frames.copy()
    result[:, :, slices, frames] = values[:, :, slices, frames]
    return heart._replace(frames=result)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tools.cine_faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--set", choices=("chosen", "reported"), required=True, help="to choose from, or to report")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the data sets (default: %(default)s)")
    parser.add_argument("--patients", type=int, default=5, help="of a data set who get faults (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # of faults that are planted
    pairs = pairs_of("cardiac", options.set == "reported", options.data, options.data)
    if not pairs:
        raise InputError(f"--data {options.data}: expected the folders acdc and sunnybrook of the data sets.")
    sets = {layout: list(found) for layout, found in groupby(pairs, lambda pair: pair.fixed.parents[1].name)}
    print(_markdown(count_verdicts(Registration.load("cardiac", device="cpu"), sets, options.patients)))
    print(f"\n{_markdown(count_warnings(sets))}")


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
