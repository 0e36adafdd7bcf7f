"""Makes a cine of a real heart whose motion is known, from the end-diastolic frame and its label map.

python -m scripts.tools.cines --image ED.nii.gz --label ED_gt.nii.gz --output_dir OUT

The law of the motion, in each slice, with r and theta about the centre of the cavity, r_i the radius of the cavity and
r_o that of cavity and wall together, both those of circles of the same area, and s = (r_i + r_o) / 2:

- Contraction. At constant area of the wall, a circle of radius r becomes one of radius r' with r'^2 = r^2 - c. The
  middle of the wall is to shorten by the fraction e, (s (1 - e))^2 = s^2 - c, which gives c = s^2 (1 - (1 - e)^2); at
  most .9 r_i^2, so that a cavity remains. Circumferential stretch is r'/r, radial stretch dr'/dr = r/r': their product
  is 1. Within the cavity r' is proportional to r.
- Rotation. theta' = theta + a, with a from +rotation at the base to -rotation at the apex, seen from the apex: torsion.
- Outside of the wall, r' - r and a fade to 0 from r_o to 3 r_o, as (1 + cos) / 2.
- Time. All are multiplied by (1 - cos(2 pi t / T)) / 2: the cycle is periodic, end-diastole is frame 0.
- Through the slices. At the base, what a slice shows moves by ``through_plane`` mm towards the apex, at the apex by 0;
  between slices, the images are interpolated linearly. The displacement in the plane is that of the slice.
- Noise with a normal distribution is added to all frames.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, map_coordinates

from ..deformation.formats import image_like, save_image
from ..deformation.grid import lattice
from ..deformation.inversion import invert_ddf
from ..heart.cine import CAVITY, MYOCARDIUM, Cine, label_names, read_cine
from ..heart.results import displacement_image
from ..heart.tracking import TrackedCine
from ..images.loading import open_image
from ..support.command_line import report_in_one_line
from ..support.files import prepare_folder

__all__ = ["Motion", "cut_out_heart", "make_cine", "still_cine", "true_motion", "write_cine"]

LEAST_VOXELS = 20  # of the cavity and of the wall in a slice that has a motion of its own
MOST_EMPTIED = 0.9  # of the area of the cavity
FADED = 3.0  # radii of the heart at which nothing moves


@dataclass(frozen=True)
class Motion:
    """A motion of the heart.

    Args:
        frames: number of frames of the cycle.
        shortening: by which fraction the middle of the wall shortens.
        rotation: degrees by which the base turns one way, and the apex the other.
        through_plane: mm by which the base moves towards the apex.
        noise: standard deviation of the noise, as a fraction of that of the image.
        seed: of the noise.
    """

    frames: int = 25
    shortening: float = 0.18
    rotation: float = 8.0
    through_plane: float = 0.0
    noise: float = 0.05
    seed: int = 0

    def phase(self) -> np.ndarray:
        """How far the contraction is in each frame, from 0 to 1, (T,)."""
        return (1 - np.cos(2 * np.pi * np.arange(self.frames) / self.frames)) / 2


@dataclass(frozen=True)
class Slice:
    """The heart in a slice, in voxels of its own.

    Args:
        center: of the cavity, (2,), mm.
        cavity: radius of the cavity, mm.
        wall: radius of cavity and wall together, mm.
        place: from 0 at the base to 1 at the apex.
    """

    center: np.ndarray
    cavity: float
    wall: float
    place: float

    def move(self, points: np.ndarray, motion: Motion, phase: float) -> np.ndarray:
        """Return where points of the plane, (2, ...) in mm, lie at a phase of the contraction."""
        away = points - self.center[:, None, None]
        r, theta = np.hypot(*away), np.arctan2(away[1], away[0])
        middle = (self.cavity + self.wall) / 2
        area = middle**2 * (1 - (1 - motion.shortening * phase) ** 2)
        area = min(area, MOST_EMPTIED * self.cavity**2)
        inner = np.sqrt(1 - area / self.cavity**2)
        moved = np.where(r < self.cavity, r * inner, np.sqrt(np.maximum(r**2 - area, 0)))
        fade = (1 + np.cos(np.pi * np.clip((r / self.wall - 1) / (FADED - 1), 0, 1))) / 2
        r = r + fade * (moved - r)
        theta = theta + fade * phase * np.deg2rad(motion.rotation * (1 - 2 * self.place))
        return np.stack([r * np.cos(theta), r * np.sin(theta)]) + self.center[:, None, None]


def still_cine(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """A cine of two frames, each of which is the image, (X, Y, Z, 2)."""
    return nib.Nifti1Image(np.repeat(np.asarray(image.dataobj, np.float32)[..., None], 2, -1), image.affine)


def true_motion(cine: Cine, motion: Motion) -> TrackedCine:
    """Return the motion of a labelled end-diastolic frame over the cycle.

    Args:
        cine: a cine of which the labelled frame alone is used.
        motion: the law.

    Returns:
        the displacements in voxels, (T, 2, X, Y, Z), of a cine whose frames are all that one.
    """
    spacing = cine.spacing[:2, None, None]
    shape = cine.frames[0].shape[1:]
    points = lattice(shape[:2], torch.float64).numpy() * spacing
    slices = _slices(cine, points)
    fields = np.zeros((motion.frames, 2, *shape), np.float32)
    for t, phase in enumerate(motion.phase()):
        for z, part in slices.items():
            fields[t, ..., z] = (part.move(points, motion, phase) - points) / spacing
    return TrackedCine(cine, 0, torch.from_numpy(fields))


def make_cine(truth: TrackedCine, motion: Motion) -> np.ndarray:
    """Return the frames of a heart with this motion, (X, Y, Z, T), float32.

    A frame shows at y the end-diastolic image at y + v(y), by cubic splines; v is the inverse of the displacement.
    """
    image = truth.cine.frames[0].as_tensor()[0].double().numpy()
    random = np.random.default_rng(motion.seed)
    shift = _shift_through_plane(truth.cine, motion)
    frames = np.empty((*image.shape, motion.frames), np.float32)
    for t, phase in enumerate(motion.phase()):
        shown = _between_slices(image, phase * shift)
        for z in range(image.shape[2]):
            inverse, _ = invert_ddf(truth.ddf[t, ..., z])
            places = (lattice(image.shape[:2]) + inverse).numpy()
            frames[..., z, t] = map_coordinates(shown[..., z], places, order=3, mode="nearest")
    return frames + random.normal(scale=motion.noise * image.std(), size=frames.shape).astype(np.float32)


def _slices(cine: Cine, points: np.ndarray) -> dict[int, Slice]:
    """The heart in each slice: those without a label, such as at the apex, move as their neighbour does."""
    cavity, wall = cine.mask(CAVITY), cine.mask(MYOCARDIUM)
    assert cavity is not None
    assert wall is not None
    known = [z for z in range(cavity.shape[2]) if min(cavity[..., z].sum(), wall[..., z].sum()) >= LEAST_VOXELS]
    from_base = known if cavity[..., known[0]].sum() > cavity[..., known[-1]].sum() else known[::-1]
    voxel = float(np.prod(cine.spacing[:2]))
    found = {}
    for z in range(cavity.shape[2]):
        like = min(known, key=lambda k: abs(k - z))
        center = points[:, cavity[..., like]].mean(1)
        inner, outer = (float(np.sqrt(mask[..., like].sum() * voxel / np.pi)) for mask in (cavity, cavity | wall))
        found[z] = Slice(center, inner, outer, from_base.index(like) / max(1, len(known) - 1))
    return found


def _shift_through_plane(cine: Cine, motion: Motion) -> np.ndarray:
    """By how many slices, towards higher ones, what each slice shows moves at end-systole, (Z,)."""
    points = lattice(cine.frames[0].shape[1:3], torch.float64).numpy() * cine.spacing[:2, None, None]
    places = np.array([part.place for part in _slices(cine, points).values()])
    return motion.through_plane / cine.spacing[2] * (1 - places) * np.sign(places[-1] - places[0])


def _between_slices(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What slices, (X, Y, Z), show after each has moved by this part of the distance to the next one, (Z,)."""
    last = image.shape[2] - 1
    places = np.clip(np.arange(image.shape[2]) - shift, 0, last)
    below = np.floor(places).astype(int).clip(0, max(last - 1, 0))
    part = places - below
    return image[..., below] * (1 - part) + image[..., (below + 1).clip(max=last)] * part


def write_cine(
    image: Path, label: Path, layout: str, motion: Motion, output_dir: Path, wall: float = 0.0, margin: int = 40
) -> None:
    """Write a cine, the label map of its first frame, and the truth: ``displacement.nii.gz``, ``truth.json``.

    Args:
        image: the end-diastolic frame.
        label: its label map; one with the cavity alone gets a wall around it.
        layout: the layout that names the ids of the label; what is written has the ids of ACDC.
        motion: the law of the motion.
        output_dir: the folder to write to.
        wall: thickness of that wall in mm.
        margin: voxels that are kept around the label.

    Raises:
        InputError: when a file is not usable.
    """
    opened, labelled = cut_out_heart(image, label, layout, wall, margin)
    truth = true_motion(read_cine(still_cine(opened), labelled, 0, label_names("acdc")), motion)
    prepare_folder(output_dir)
    frames = make_cine(truth, motion)
    made = image_like(frames.clip(0).round().astype(np.uint16), opened)
    made.header.set_zooms((*opened.header.get_zooms()[:3], 1 / motion.frames))
    made.header.set_xyzt_units("mm", "sec")
    save_image(made, output_dir / "cine.nii.gz")
    save_image(labelled, output_dir / "label.nii.gz")
    save_image(displacement_image(truth), output_dir / "displacement.nii.gz")
    (output_dir / "truth.json").write_text(json.dumps(asdict(motion), indent=2) + "\n")


def cut_out_heart(
    image: Path, label: Path, layout: str, wall: float = 0.0, margin: int = 40
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Read a frame and its label map, and cut away what lies far from the label; see :func:`write_cine`."""
    labelled = _relabelled(open_image(label, "label"), label_names(layout), label_names("acdc"), wall)
    return _around(open_image(image, "image"), labelled, margin), _around(labelled, labelled, margin)


def _relabelled(
    label: nib.Nifti1Image, known: Mapping[int, str], wanted: Mapping[int, str], wall: float
) -> nib.Nifti1Image:
    """Change the ids of a label map, and draw a wall, in mm, around the cavity where there is none."""
    ids = {name: value for value, name in wanted.items()}
    values = np.asarray(label.dataobj).round().astype(int)
    result = np.zeros(values.shape, np.uint8)
    for value, name in known.items():
        result[values == value] = ids.get(name, 0)
    cavity = result == ids[CAVITY]
    if wall and not (result == ids[MYOCARDIUM]).any():
        spacing = np.linalg.norm(label.affine[:3, :2], axis=0)
        for z in np.flatnonzero(cavity.any((0, 1))):
            ring = (distance_transform_edt(~cavity[..., z], spacing) <= wall) & ~cavity[..., z]
            result[ring, z] = ids[MYOCARDIUM]
    return image_like(result, label)


def _around(volume: nib.Nifti1Image, label: nib.Nifti1Image, margin: int) -> nib.Nifti1Image:
    """Cut away what lies far from the label."""
    places = np.argwhere(np.asarray(label.dataobj))[:, :2]
    low, high = (places.min(0) - margin).clip(0), places.max(0) + margin + 1
    return volume.slicer[low[0] : high[0], low[1] : high[1]]


def main(arguments: Sequence[str] | None = None) -> None:
    known = Motion()
    parser = argparse.ArgumentParser(prog="python -m scripts.tools.cines", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--image", type=Path, required=True, help="the end-diastolic frame, (X, Y, Z)")
    parser.add_argument("--label", type=Path, required=True, help="its label map")
    parser.add_argument("--label_layout", default="acdc", help="the layout that names the ids of the label")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--wall", type=float, default=9.0, help="mm around a cavity alone (default: %(default)s)")
    parser.add_argument("--margin", type=int, default=40, help="voxels kept around the label (default: %(default)s)")
    for name, value in asdict(known).items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help="default: %(default)s")
    options = parser.parse_args(arguments)
    motion = Motion(**{name: getattr(options, name) for name in asdict(known)})
    files = options.image, options.label, options.label_layout
    write_cine(*files, motion, options.output_dir, options.wall, options.margin)


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
