"""Strain of the myocardium, and rotation, from the motion of a tracked cine; definitions in docs/strain.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..support.errors import InputError
from ..support.notices import warn
from .cine import CAVITY, MYOCARDIUM, RIGHT, Cine, base_first

if TYPE_CHECKING:
    from .tracking import TrackedCine

__all__ = ["LEVELS", "Strain", "measure_strain"]

LEVELS = ("basal", "mid", "apical")
FIRST = {"basal": 1, "mid": 7, "apical": 13}  # number of the first AHA segment of each level
NARROWEST = np.deg2rad(10)  # of a septum
LEAST_VOXELS = 10  # of the cavity and of the myocardium in a slice that is measured


@dataclass(frozen=True)
class Strain:
    """Strain of every segment and frame.

    Args:
        circumferential: change of length along the circumference, as a fraction, of each segment, (T,).
        radial: the same across the wall.
        rotation: degrees of each level, counterclockwise seen from the apex, (T,).
        segments: segment of each voxel of the myocardium, (X, Y, Z): an AHA number, 0 elsewhere; None without the
            insertions of the right ventricle.
    """

    circumferential: dict[str, np.ndarray]
    radial: dict[str, np.ndarray]
    rotation: dict[str, np.ndarray]
    segments: np.ndarray | None

    @property
    def twist(self) -> np.ndarray | None:
        """Rotation of the apex minus that of the base, in degrees, (T,)."""
        if not {"apical", "basal"} <= self.rotation.keys():
            return None
        return self.rotation["apical"] - self.rotation["basal"]


def green(engineering: np.ndarray) -> np.ndarray:
    """Green's strain of an engineering strain: ((1 + e)^2 - 1) / 2, both as fractions."""
    return ((1 + engineering) ** 2 - 1) / 2


def measure_strain(tracked: TrackedCine) -> Strain | None:
    """Measure strain and rotation; None if the label has no myocardium around the cavity.

    Args:
        tracked: a tracked cine with a label of its reference frame.
    """
    cavity, myocardium = (tracked.cine.mask(name) for name in (CAVITY, MYOCARDIUM))
    if cavity is None or myocardium is None:
        return None
    slices = [z for z in range(cavity.shape[2]) if min(cavity[..., z].sum(), myocardium[..., z].sum()) >= LEAST_VOXELS]
    if not slices:
        return None
    axes = Axes(tracked, cavity, slices)
    levels = _levels(axes.from_base)
    segments = _aha_segments(tracked, myocardium, axes, levels)
    regions = {"global": np.isin(np.arange(cavity.shape[2]), slices)[None, None] & myocardium}
    for name, chosen in levels.items():
        regions[name] = np.isin(np.arange(cavity.shape[2]), chosen)[None, None] & myocardium
    if segments is not None:
        regions |= {str(n): segments == n for n in range(1, 17) if (segments == n).any()}
    regions = {name: region[myocardium] for name, region in regions.items()}
    circumferential: dict[str, list[float]] = {name: [] for name in regions}
    radial: dict[str, list[float]] = {name: [] for name in regions}
    rotation: dict[str, list[float]] = {name: [] for name in levels}
    for field in tracked.ddf.numpy():
        millimetres = field * axes.spacing[:2, None, None, None].astype(field.dtype)
        stretch = axes.stretch(millimetres, myocardium, tracked.region)
        for name, region in regions.items():
            circumferential[name].append(float(stretch[0][region].mean()) - 1)
            radial[name].append(float(stretch[1][region].mean()) - 1)
        turned = axes.turned(millimetres, myocardium)
        for name, chosen in levels.items():
            rotation[name].append(float(np.mean([turned[z] for z in chosen])))
    return Strain(_arrays(circumferential), _arrays(radial), _arrays(rotation), segments)


def _arrays(values: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {name: np.array(each) for name, each in values.items()}


class Axes:
    """The radial and the circumferential direction of each voxel, and which way the stack goes.

    Args:
        tracked: the cine.
        cavity: the cavity of the left ventricle in the reference frame, boolean, (X, Y, Z).
        slices: the slices that are measured.

    Attributes:
        spacing: voxel sizes in mm.
        centers: the centre of the cavity in each slice, in mm from the first voxel, (2,).
        radial: unit vectors from the centre of the cavity, (2, X, Y, Z), 0 in other slices.
        from_base: the measured slices, from base to apex.
        handedness: 1 where a turn from the first to the second axis is counterclockwise seen from the apex, else -1.
    """

    def __init__(self, tracked: TrackedCine, cavity: np.ndarray, slices: list[int]) -> None:
        affine = tracked.cine.image.affine[:3, :3]
        self.spacing = tracked.cine.spacing
        self.radial = np.zeros((2, *cavity.shape))
        points = np.stack(
            np.meshgrid(*(np.arange(n) * s for n, s in zip(cavity.shape[:2], self.spacing)), indexing="ij")
        )
        self.points = points
        self.centers = {z: points[:, cavity[..., z]].mean(1) for z in slices}
        for z, center in self.centers.items():
            away = points - center[:, None, None]
            self.radial[..., z] = away / np.maximum(np.linalg.norm(away, axis=0), 1e-9)
        self.from_base = base_first(cavity, slices)
        to_apex = affine[:, 2] * (1 if self.from_base == slices else -1)
        # seen from the apex, looking to the base, a turn is counterclockwise about the axis that points to the viewer
        self.handedness = float(np.sign(np.dot(np.cross(affine[:, 0], affine[:, 1]), to_apex)))

    def stretch(
        self, millimetres: np.ndarray, mask: np.ndarray, region: tuple[slice, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return by how much the circumferential and the radial direction grow under a displacement.

        Args:
            millimetres: displacement in the plane, (2, X, Y, Z).
            mask: the N voxels where it is wanted, boolean, (X, Y, Z).
            region: the part of the grid that holds them and their neighbours.

        Returns:
            |F c| and |F r|, each (N,), with F = 1 + du/dx by central differences.
        """
        parts = [np.gradient(part[region], *self.spacing[:2], axis=(0, 1)) for part in millimetres]
        gradient = np.array([[along[mask[region]] for along in part] for part in parts])
        r = self.radial[:, mask]
        c = np.stack([-r[1], r[0]])
        along = [d + np.einsum("abn,bn->an", gradient, d) for d in (c, r)]
        return np.linalg.norm(along[0], axis=0), np.linalg.norm(along[1], axis=0)

    def turned(self, millimetres: np.ndarray, myocardium: np.ndarray) -> dict[int, float]:
        """Return the rotation of the myocardium about its moving centre in each slice, in degrees."""
        found = {}
        for z in self.from_base:
            mask = myocardium[..., z]
            before = self.points[:, mask]
            after = before + millimetres[:, mask, z]
            a, b = (p - p.mean(1, keepdims=True) for p in (before, after))
            angle = np.arctan2((a[0] * b[1] - a[1] * b[0]).sum(), (a * b).sum())
            found[z] = float(np.degrees(angle)) * self.handedness
        return found


def _levels(from_base: list[int]) -> dict[str, list[int]]:
    """Divide the slices, from base to apex, into thirds; none if there are fewer than three."""
    if len(from_base) < len(LEVELS):
        return {}
    return {name: [int(z) for z in part] for name, part in zip(LEVELS, np.array_split(from_base, len(LEVELS)))}


def _aha_segments(
    tracked: TrackedCine, myocardium: np.ndarray, axes: Axes, levels: dict[str, list[int]]
) -> np.ndarray | None:
    """Number the voxels of the myocardium by the segments of the American Heart Association, 1 to 16.

    The septum lies between the insertions of the right ventricle. From the anterior one, seen from the apex, the
    segments follow counterclockwise.
    """
    angles = np.arctan2(axes.radial[1], axes.radial[0]) * axes.handedness
    septa = _given_septum(tracked.cine, axes) or _labelled_septa(tracked.cine, angles, axes)
    if not septa or not levels:
        return None
    segments = np.zeros(myocardium.shape, np.int16)
    for name, slices in levels.items():
        for z in slices:
            front, width = septa[min(septa, key=lambda known: abs(known - z))]
            mask = myocardium[..., z]
            segments[mask, z] = FIRST[name] + _sector(angles[..., z][mask], front, width, name)
    return segments


def _given_septum(cine: Cine, axes: Axes) -> dict[int, tuple[float, float]]:
    """The septum, as in :func:`_insertions`, between the points that the user gave, in a slice near them."""
    if cine.insertions is None:
        return {}
    found = []
    for point in cine.insertions:
        z = min(axes.centers, key=lambda known: abs(known - point[2]))
        away = point[:2] * axes.spacing[:2] - axes.centers[z]
        found.append(np.arctan2(away[1], away[0]) * axes.handedness)
    width = float(np.angle(np.exp(1j * (found[1] - found[0]))))
    if abs(width) < NARROWEST:
        raise InputError(
            "rv_insertion: both points lie in the same direction from the centre of the cavity: expected the ends of "
            "the septum."
        )
    return {z: (float(found[0]), width)}


def _labelled_septa(cine: Cine, angles: np.ndarray, axes: Axes) -> dict[int, tuple[float, float]]:
    """The septum, as in :func:`_insertions`, of each slice in which the right ventricle is labelled."""
    right = cine.mask(RIGHT)
    if right is None:
        return {}
    affine = cine.image.affine
    if not affine[:3, :3][~np.eye(3, dtype=bool)].any():
        warn(
            f"cine: {cine.path}: its header has no orientation: the second axis is taken to point to the front "
            "of the patient; segments and the sign of the rotation may be wrong."
        )
    anterior = affine[1, :2]  # towards the front, along both axes of the plane
    found = {z: _insertions(angles[..., z], right[..., z], anterior, axes) for z in axes.from_base}
    return {z: septum for z, septum in found.items() if septum}


def _insertions(angles: np.ndarray, right: np.ndarray, anterior: np.ndarray, axes: Axes) -> tuple[float, float] | None:
    """Return the angle of the anterior insertion and the width of the septum, counterclockwise seen from the apex.

    The anterior insertion is the one that lies further to the front in the patient.
    """
    if right.sum() < LEAST_VOXELS:
        return None
    values = angles[right]
    middle = np.angle(np.exp(1j * values).mean())
    spread = np.angle(np.exp(1j * (values - middle)))
    low, high = middle + spread.min(), middle + spread.max()
    # the direction of an angle in voxels, and how far it points to the front
    fronts = [float(np.cos(a) * anterior[0] + axes.handedness * np.sin(a) * anterior[1]) for a in (low, high)]
    if fronts[0] >= fronts[1]:
        return low, high - low
    return high, low - high  # the septum follows clockwise: the stack is mirrored


def _sector(angles: np.ndarray, front: float, width: float, level: str) -> np.ndarray:
    """Return the place of angles in the order of the segments of a level, from 0."""
    turn = 1.0 if width >= 0 else -1.0
    septum = abs(width)
    around = np.mod(turn * (angles - front), 2 * np.pi)  # from the anterior insertion, the septum first
    if level == "apical":  # 13 anterior, 14 septal, 15 inferior, 16 lateral, each a quarter
        quarter = np.mod(around - septum / 2 + np.pi / 4, 2 * np.pi) // (np.pi / 2)
        return np.array([1, 2, 3, 0])[quarter.astype(int).clip(0, 3)]
    free = 2 * np.pi - septum
    return np.where(
        around < septum,
        1 + (2 * around / septum).astype(int).clip(0, 1),
        np.array([3, 4, 5, 0])[((around - septum) * 4 / free).astype(int).clip(0, 3)],
    )
