"""Tracks the heart: where each point of the reference frame lies in every other frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor

from ..deformation.grid import as_volume, by_image, lattice, sample
from ..deformation.inversion import invert_ddf
from ..deformation.jacobian import jacobian_determinant
from ..support.notices import warn
from .cine import CAVITY, Cine, as_frame

__all__ = ["TrackedCine", "track"]

Register = Callable[[MetaTensor, MetaTensor], torch.Tensor]
"""Maps a fixed and a moving frame to the displacement in voxels, shape (3, X, Y, Z)."""

HARMONICS = 8  # of the heart rate, to which the motion of a point is limited
LEAST_FRAMES = 12  # fewer frames are not smoothed in time
DISTINCT = 0.05  # difference of the relative areas of end-diastole and end-systole that is more than noise
LARGER = 1.02  # ratio of two volumes of the cavity that is more than noise


@dataclass(frozen=True)
class TrackedCine:
    """A cine with the motion of the reference frame.

    Args:
        cine: the cine; its label belongs to the reference frame.
        reference: the frame whose points are tracked, end-diastole.
        ddf: displacement in voxels from the reference frame to each frame, in the plane, shape (T, 2, X, Y, Z).
    """

    cine: Cine
    reference: int
    ddf: torch.Tensor

    @cached_property
    def volumes(self) -> dict[str, np.ndarray]:
        """The volume in ml of each labelled structure in each frame: the determinant of the motion, integrated."""
        voxel = float(abs(np.linalg.det(self.cine.image.affine[:3, :3]))) / 1000
        masks = {name: self.cine.mask(name) for name in self.cine.ids}
        totals: dict[str, list[float]] = {name: [] for name in masks}
        for field in self.ddf:
            determinant = _areas(field).numpy()
            for name, mask in masks.items():
                totals[name].append(float(determinant[mask].sum()) * voxel)
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
        return np.quantile(self.ddf.norm(dim=1).flatten(1).numpy(), 0.99, axis=1)

    def carry_label(self, frame: int) -> np.ndarray:
        """Return the label map of the reference frame in another frame, by nearest neighbour, shape (X, Y, Z)."""
        assert self.cine.label is not None
        label = self.cine.label.as_tensor()
        result = torch.empty_like(label[0])
        for z, field in enumerate(by_image(self.ddf[frame], 2)):
            inverse, _ = invert_ddf(field)
            points = lattice(field.shape[1:]) + inverse
            result[..., z] = sample(label[..., z], points, "nearest", 0)[0]
        return result.numpy()


def track(cine: Cine, register: Register) -> TrackedCine:
    """Track a cine from its labelled frame or, without a label, from end-diastole.

    Every frame is registered to the reference frame directly, so that errors do not add up along the cycle. The motion
    of each point is then limited to ``HARMONICS`` harmonics of the heart rate, which makes it periodic, and what this
    leaves in the reference frame is subtracted from all frames. If the cavity is largest in another frame than that of
    the label, the label is carried there, and the tracking starts again.

    Args:
        cine: the cine.
        register: registers two frames.
    """
    tracked = _track_from(cine, cine.label_frame, register)
    if cine.label is not None:
        cavity = tracked.volumes[CAVITY]
        largest = int(cavity.argmax())
        if cavity[largest] > LARGER * cavity[cine.label_frame]:
            warn(
                f"cine: {cine.path}: the cavity is largest in frame {largest}, {cavity[largest]:.0f} ml, and has "
                f"{cavity[cine.label_frame]:.0f} in frame {cine.label_frame} of the label: strain starts at {largest}."
            )
            label = as_frame(tracked.carry_label(largest), cine.frames[0])
            tracked = _track_from(replace(cine, label=label, label_frame=largest), largest, register)
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
    return np.array([float((_areas(field) * weight).sum() / weight.sum()) for field in tracked.ddf])


def _areas(field: torch.Tensor) -> torch.Tensor:
    """By how much a displacement, (2, X, Y, Z), changes areas in the plane: its determinant, (X, Y, Z)."""
    return as_volume(jacobian_determinant(by_image(field, 2), central=True), 2)


def _track_from(cine: Cine, reference: int, register: Register) -> TrackedCine:
    fixed = cine.frames[reference]
    fields = [
        torch.zeros(2, *fixed.shape[1:])
        if t == reference
        else convert_to_tensor(register(fixed, frame), track_meta=False)[:2].float()
        for t, frame in enumerate(cine.frames)
    ]
    ddf = _periodic(torch.stack(fields)) if len(fields) >= LEAST_FRAMES else torch.stack(fields)
    return TrackedCine(cine, reference, ddf - ddf[reference].clone())


def _periodic(ddf: torch.Tensor) -> torch.Tensor:
    """Limit each point's motion, shape (T, ...), to the lowest harmonics of the cycle."""
    count = len(ddf)
    kept = torch.arange(count // 2 + 1) <= min(HARMONICS, count // 3)
    result = torch.empty_like(ddf)
    for row in range(ddf.shape[2]):  # a part of the memory
        spectrum = torch.fft.rfft(ddf[:, :, row], dim=0)
        result[:, :, row] = torch.fft.irfft(spectrum * kept.view(-1, *[1] * (spectrum.ndim - 1)), n=count, dim=0)
    return result
