"""Tracks the heart: where each point of the reference frame lies in every other frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from ..deformation.grid import lattice, length, sample
from ..support.notices import warn
from ..verdict import Verdict
from .cine import CAVITY, MYOCARDIUM, Cine, as_frame
from .departure import areas, find_departed
from .refinement import invert_slices
from .strain import Strain, measure_strain
from .verdict import find_evidence, judge_cine

__all__ = ["TrackedCine", "track"]

Register = Callable[[Cine, int], torch.Tensor]
"""Maps a cine and a frame to the displacement in voxels from there to each frame, in the plane, (T, 2, X, Y, Z)."""

DISTINCT = 0.05  # difference of the relative areas of end-diastole and end-systole that is more than noise
INVERSIONS, FURTHER_INVERSIONS = 20, 5  # iterations of an inverse, at most
LEFT = (CAVITY, MYOCARDIUM)  # of the left ventricle
LARGER = 1.02  # ratio of two volumes of the cavity that is more than noise


@dataclass(frozen=True)
class TrackedCine:
    """A cine with the motion of the reference frame.

    Args:
        cine: the cine; its label belongs to the reference frame.
        reference: the frame whose points are tracked, end-diastole.
        ddf: displacement in voxels from the reference frame to each frame, in the plane, shape (T, 2, X, Y, Z).
        departed: the slice that has left the left ventricle, in the frames that have one, see :func:`find_departed`.
        warnings: what was doubtful about the cine.
    """

    cine: Cine
    reference: int
    ddf: torch.Tensor
    departed: Mapping[int, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def strain(self) -> Strain | None:
        """Strain and rotation; None if the label has no myocardium around the cavity.

        Raises:
            InputError: when the insertions of the right ventricle are not usable.
        """
        return measure_strain(self)

    @cached_property
    def evidence(self) -> dict[str, float]:
        """What the verdict is made of, see :func:`~scripts.heart.verdict.find_evidence`."""
        return find_evidence(self)

    @property
    def verdict(self) -> Verdict:
        """Whether the tracking can be trusted, and why not."""
        return judge_cine(self.evidence, self.warnings)

    def surroundings(self, margin: int) -> tuple[slice, slice, slice]:
        """The voxels of :attr:`region` and a margin in the plane; without a label, all voxels."""
        if self.cine.label is None:
            return slice(None), slice(None), slice(None)
        i, j, k = self.region
        return slice(max(i.start - margin, 0), i.stop + margin), slice(max(j.start - margin, 0), j.stop + margin), k

    @cached_property
    def region(self) -> tuple[slice, slice, slice]:
        """The voxels in which the label lies in any frame: the box around it, and its longest displacement."""
        if self.cine.label is None:
            return slice(0), slice(0), slice(0)
        label = self.cine.label.as_tensor()[0]
        places = label.nonzero()
        reach = math.ceil(max(float(ddf[:, label != 0].abs().max()) for ddf in self.ddf)) + 1
        low, high = places.amin(0) - torch.tensor([reach, reach, 0]), places.amax(0) + torch.tensor([reach, reach, 0])
        i, j, k = (slice(max(int(first), 0), int(last) + 1) for first, last in zip(low, high))
        return i, j, k

    @cached_property
    def volumes(self) -> dict[str, np.ndarray]:
        """The volume in ml of each labelled structure in each frame: the determinant of the motion, integrated.

        The left ventricle does not count in a slice that has left it, see :func:`find_departed`.
        """
        voxel = float(abs(np.linalg.det(self.cine.image.affine[:3, :3]))) / 1000
        masks = {name: mask[self.region] for name in self.cine.ids if (mask := self.cine.mask(name)) is not None}
        totals: dict[str, list[float]] = {name: [] for name in masks}
        first = self.region[2].start
        for t, ddf in enumerate(self.ddf if masks else ()):
            determinant = areas(ddf[:, *self.region]).numpy()
            gone = self.departed.get(t)
            for name, mask in masks.items():
                kept = mask if gone is None or name not in LEFT else mask & (np.arange(mask.shape[2]) != gone - first)
                totals[name].append(float(determinant[kept].sum()) * voxel)
        return {name: np.array(values) for name, values in totals.items()}

    @property
    def end_systole(self) -> int:
        """The frame with the smallest cavity; without a label, the one with the largest motion."""
        if CAVITY in self.volumes:
            return int(self.volumes[CAVITY].argmin())
        return int(self.motion.argmax())

    @cached_property
    def motion(self) -> np.ndarray:
        """The length of the displacements of each frame, in voxels, that 1 % of its voxels exceed."""
        return np.array([np.quantile(length(ddf).numpy(), 0.99) for ddf in self.ddf])

    def carry_label(self, frame: int) -> np.ndarray:
        """Return the label map of the reference frame in another frame, by nearest neighbour, shape (X, Y, Z)."""
        return self._carried(self._invert(frame, None), frame)

    def carry_points(self, points: np.ndarray, frame: int) -> np.ndarray:
        """Return where points of the reference frame, in voxels, (N, 3), lie in another frame."""
        moved = sample(self.ddf[frame], torch.from_numpy(points.T).float())
        return points + np.pad(moved.numpy().T, ((0, 0), (0, 1)))

    def carry_labels(self) -> np.ndarray:
        """Return the label map of the reference frame in all frames, shape (X, Y, Z, T)."""
        carried: dict[int, np.ndarray] = {}
        inverse = None
        for distance in range(len(self.ddf)):
            frame = (self.reference + distance) % len(self.ddf)
            inverse = self._invert(frame, inverse)
            carried[frame] = self._carried(inverse, frame)
        return np.stack([carried[frame] for frame in range(len(self.ddf))], -1)

    def _invert(self, frame: int, start: torch.Tensor | None) -> torch.Tensor:
        """The inverse displacement of a frame in the region, (Z, 2, X, Y), from that of the frame before, if known."""
        i, j, k = self.region
        ddf = self.ddf[frame, :, :, :, k].movedim(-1, 0).contiguous()
        points = lattice(ddf.shape[2:])[:, i, j]
        first = torch.zeros(len(ddf), *points.shape) if start is None else start
        return invert_slices(ddf, points, first, INVERSIONS if start is None else FURTHER_INVERSIONS)

    def _carried(self, inverse: torch.Tensor, frame: int) -> np.ndarray:
        """The label map of the reference frame where the inverse of a frame takes it from, (X, Y, Z)."""
        assert self.cine.label is not None
        label = self.cine.label.as_tensor()[0]
        i, j, k = self.region
        x, y = (lattice(label.shape[:2])[:, i, j] + inverse).round().long().unbind(1)
        slices = torch.arange(k.start, k.stop).view(-1, 1, 1)
        result = torch.zeros_like(label)
        found = label[x.clamp(0, label.shape[0] - 1), y.clamp(0, label.shape[1] - 1), slices]
        result[i, j, k] = found.movedim(0, -1)
        gone = self.departed.get(frame)
        if gone is not None:
            for name in LEFT:
                result[..., gone][result[..., gone] == self.cine.ids.get(name, -1)] = 0
        return result.numpy()


def track(cine: Cine, register: Register) -> TrackedCine:
    """Track a cine from its labelled frame or, without a label, from end-diastole.

    Every frame is registered to the reference frame directly, so that errors do not add up along the cycle; what the
    registration leaves in the reference frame itself is subtracted from all frames. If the cavity is largest in another
    frame than that of the label, the label is carried there, and the tracking starts again.

    Args:
        cine: the cine.
        register: registers all frames to one of them, as :func:`~scripts.heart.frames.register_frames`.
    """
    tracked = _track_from(cine, cine.label_frame, register)
    if cine.label is not None and CAVITY not in tracked.volumes:
        return tracked
    if cine.label is not None:
        cavity = tracked.volumes[CAVITY]
        largest = int(cavity.argmax())
        if cavity[largest] > LARGER * cavity[cine.label_frame]:
            warn(
                f"cine: {cine.path}: the cavity is largest in frame {largest}, {cavity[largest]:.0f} ml, and has "
                f"{cavity[cine.label_frame]:.0f} in frame {cine.label_frame} of the label: strain starts at {largest}."
            )
            label = as_frame(tracked.carry_label(largest), cine.frames[0])
            points = None if cine.insertions is None else tracked.carry_points(cine.insertions, largest)
            cine = replace(cine, label=label, label_frame=largest, insertions=points)
            tracked = _track_from(cine, largest, register)
        return tracked
    first = int(_distance_to(tracked, tracked.reference).argmax())
    away = _distance_to(tracked, first)
    second = int(away.argmax())
    size = _size(tracked)
    diastole, systole = (first, second) if size[first] > size[second] else (second, first)
    sure = "surely" if size[diastole] - size[systole] > DISTINCT else "perhaps"
    warn(f"cine: {cine.path}: without a label, end-diastole is {sure} frame {diastole}, and end-systole {systole}.")
    return tracked if diastole == cine.label_frame else _track_from(cine, diastole, register)


def _distance_to(tracked: TrackedCine, frame: int) -> np.ndarray:
    """How far each frame is from another one: the mean length of the difference of their displacements."""
    return (tracked.ddf - tracked.ddf[frame]).norm(dim=1).flatten(1).mean(1).numpy()


def _size(tracked: TrackedCine) -> np.ndarray:
    """The relative area of what moves in each frame: the mean determinant, weighted by the motion over the cycle."""
    weight = tracked.ddf.norm(dim=1).amax(0)
    return np.array([float((areas(ddf) * weight).sum() / weight.sum()) for ddf in tracked.ddf])


def _track_from(cine: Cine, reference: int, register: Register) -> TrackedCine:
    ddf = register(cine, reference)
    ddf = ddf - ddf[reference].clone()
    return TrackedCine(cine, reference, ddf, find_departed(cine, reference, ddf))
