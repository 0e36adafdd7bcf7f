"""Reads a cine: a stack of short-axis slices over the heart cycle, and the label map of one of its frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from ..cohorts.layouts import LAYOUTS
from ..images.loading import Source, as_nifti, check_same_grid, read_nifti, read_voxels
from ..support.errors import InputError
from ..support.notices import warn
from .insertions import Insertions, read_insertions

__all__ = ["CAVITY", "MYOCARDIUM", "RIGHT", "Cine", "base_first", "label_names", "read_cine", "separation"]

CAVITY, MYOCARDIUM, RIGHT = "LV", "Myo", "RV"
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
LONGEST_CYCLE = 5.0  # seconds
WRONG_FRAME = 0.1  # of a frame, by how much the label separates intensities worse than in the best frame


@dataclass(frozen=True)
class Cine:
    """A cine, and what is known of it.

    Args:
        image: the file, (X, Y, Z, T), whose header the results take.
        frames: the frames, each a MetaTensor of shape (1, X, Y, Z).
        label: label map of one frame, shape (1, X, Y, Z), or None.
        label_frame: the frame of the label.
        ids: id in the label map of each structure: ``LV``, ``Myo``, ``RV``; only those that it holds.
        frame_seconds: time between two frames; None if the header does not say it.
        path: where the file lies; empty if it was in memory.
        insertions: voxels of the anterior and the inferior insertion of the right ventricle in the labelled frame,
            (2, 3); None where the label shows them.
    """

    image: nib.Nifti1Image
    frames: list[MetaTensor]
    label: MetaTensor | None
    label_frame: int
    ids: Mapping[str, int]
    frame_seconds: float | None
    path: str
    insertions: np.ndarray | None = None

    @property
    def spacing(self) -> np.ndarray:
        """Voxel sizes in mm."""
        return np.linalg.norm(self.image.affine[:3, :3], axis=0)

    @property
    def from_base(self) -> list[int]:
        """The slices in which the cavity is labelled, from the base to the apex; empty without a label."""
        cavity = self.mask(CAVITY)
        return [] if cavity is None else base_first(cavity, np.flatnonzero(cavity.any((0, 1))).tolist())

    def mask(self, structure: str) -> np.ndarray | None:
        """Return where a structure is in the labelled frame, boolean, (X, Y, Z); None if it is not labelled."""
        if self.label is None or structure not in self.ids:
            return None
        return self.label.as_tensor()[0].numpy() == self.ids[structure]


def base_first(cavity: np.ndarray, slices: list[int]) -> list[int]:
    """Return slices from the base, where the cavity, (X, Y, Z), is wide, to the apex."""
    half = max(1, len(slices) // 2)
    ends = [cavity[..., part].sum() for part in (slices[:half], slices[-half:])]
    return slices if ends[0] >= ends[1] else slices[::-1]


def read_cine(
    cine: Source,
    label: Source | None = None,
    label_frame: int = 0,
    names: Mapping[int, str] | None = None,
    rv_insertion: Insertions | None = None,
) -> Cine:
    """Read a cine and the label map of one of its frames.

    Args:
        cine: an image of shape (X, Y, Z, T), slices along the third axis: a file, a folder of DICOM files, see
            :func:`~scripts.images.dicom_cine.open_dicom_cine`, or in memory.
        label: a label map of one frame, (X, Y, Z), or of all, (X, Y, Z, T), of which that frame is taken.
        label_frame: the frame of the label, from 0.
        names: name of each id of the label map; structures with other names than LV, Myo and RV are not measured. None
            takes any label map, of which nothing is measured.
        rv_insertion: the insertions of the right ventricle in that frame, in place of those that the label shows.

    Raises:
        InputError: when a file is not usable, or the label does not fit.
    """
    image = as_nifti(cine, "cine", cine=True)
    cine = image.get_filename() or "the cine in memory"
    frames = _read_frames(image, cine)
    if not 0 <= label_frame < len(frames):
        raise InputError(f"label_frame is {label_frame}: expected 0 to {len(frames) - 1}, a frame of {cine}.")
    opened = None if label is None else as_nifti(label, "label")
    label_name = f"label: {(opened and opened.get_filename()) or 'the label map in memory'}"
    found = None if opened is None else _read_label(opened, label_name, label_frame, frames[0], str(cine))
    present: set[int] = set() if found is None else set(found.unique().tolist())
    ids = {name: value for value, name in (names or {}).items() if value in present}
    if found is not None and names is not None and CAVITY not in ids:
        known = ", ".join(f"{value} {name}" for value, name in names.items())
        raise InputError(
            f"{label_name} holds the ids {sorted(int(i) for i in present - {0})} in frame {label_frame}: "
            f"expected the cavity of the left ventricle among them ({known}); --label_layout names other ids."
        )
    insertions = None if rv_insertion is None else read_insertions(rv_insertion, image)
    result = Cine(image, frames, found, label_frame, ids, _frame_seconds(image), str(cine), insertions)
    _check_frame_of_label(result, label_name)
    return result


def label_names(layout: str) -> dict[int, str]:
    """Return the name of each id of the labels of hearts in a data-set layout.

    Raises:
        InputError: when there is no such layout, or it has no cavity of the left ventricle.
    """
    known = {name: found.label_names for name, found in LAYOUTS.items() if CAVITY in found.label_names.values()}
    if layout not in known:
        raise InputError(f"label_layout is '{layout}': expected one of {', '.join(known)}.")
    return known[layout]


def separation(image: np.ndarray, cavity: np.ndarray, wall: np.ndarray) -> float:
    """Return the part of the variance of intensities that a division into a bright cavity and a dark wall explains.

    Args:
        image: (X, Y, Z).
        cavity: boolean, (X, Y, Z).
        wall: boolean, (X, Y, Z).

    Returns:
        0 to 1, the mean over the slices that hold both; negative where the wall is brighter.
    """
    explained = total = 0.0
    for z in np.flatnonzero(cavity.any((0, 1)) & wall.any((0, 1))):
        inner, outer = image[cavity[..., z], z], image[wall[..., z], z]
        both = np.concatenate([inner, outer])
        spread = float(both.var()) or 1.0
        means = inner.mean() - both.mean(), outer.mean() - both.mean()
        between = float(len(inner) * means[0] ** 2 + len(outer) * means[1] ** 2)
        explained += between / spread * float(np.sign(means[0] - means[1]))
        total += len(both)
    return explained / max(total, 1.0)


def _read_frames(image: nib.Nifti1Image, cine: str) -> list[MetaTensor]:
    shape = image.shape
    if len(shape) != 4 or shape[3] < 2:
        raise InputError(f"cine: {cine} has shape {shape}: expected (X, Y, Z, T), a stack of slices over the cycle.")
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    if shape[2] > 1 and spacing[2] < 0.99 * spacing.max():
        sizes = [round(float(s), 3) for s in spacing]
        raise InputError(f"cine: {cine} has spacing {sizes} mm: expected its slices along the third axis.")
    voxels = read_voxels(image, "cine")
    frames = [read_nifti(nib.Nifti1Image(voxels[..., t], image.affine), f"cine, frame {t}", 2) for t in range(shape[3])]
    for t, frame in enumerate(frames):
        if frame.min() == frame.max():
            raise InputError(f"cine: {cine}: frame {t} is constant: expected images of a beating heart.")
    return frames


def _read_label(opened: nib.Nifti1Image, name: str, frame: int, image: MetaTensor, cine: str) -> MetaTensor:
    if len(opened.shape) == 4 and opened.shape[3] > 1:
        if frame >= opened.shape[3]:
            raise InputError(f"{name} has {opened.shape[3]} frames: expected a map of frame {frame}.")
        opened = nib.Nifti1Image(read_voxels(opened, "label")[..., frame], opened.affine)
    ways = (nib.io_orientation(affine) for affine in (opened.affine, image.affine.numpy()))
    # programs that convert DICOM turn its axes around
    found = read_nifti(opened.as_reoriented(nib.orientations.ornt_transform(*ways)), "label", 2, label=True)
    check_same_grid(found, image, name, cine)
    return found


def _check_frame_of_label(cine: Cine, name: str) -> None:
    """Warn if a label separates the cavity from the wall clearly better in another frame than in its own."""
    cavity, wall = cine.mask(CAVITY), cine.mask(MYOCARDIUM)
    if cavity is None or wall is None:
        return
    fits = [separation(frame.as_tensor()[0].numpy(), cavity, wall) for frame in cine.frames]
    best = int(np.argmax(fits))
    if fits[best] > fits[cine.label_frame] + WRONG_FRAME:
        warn(
            f"{name} fits frame {best} of {cine.path} much better than frame {cine.label_frame}, to which it is said "
            "to belong (--label_frame)."
        )


def _frame_seconds(image: nib.Nifti1Image) -> float | None:
    """The time between frames, if the header has a plausible one."""
    zooms, unit = image.header.get_zooms(), image.header.get_xyzt_units()[1]
    seconds = float(zooms[3]) * SECONDS.get(unit, 0.0) if len(zooms) > 3 else 0.0
    return seconds if 0 < seconds * image.shape[3] <= LONGEST_CYCLE else None


def as_frame(values: np.ndarray, like: MetaTensor) -> MetaTensor:
    """Return values, (X, Y, Z), on the grid of a frame."""
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(values))[None], meta=like.meta)
