"""Whether a tracked cine can be trusted: what is measured, and what is concluded from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..deformation.grid import lattice
from ..images.intensities import find_range
from ..networks.similarity import local_moments
from ..results.measures import scale
from ..verdict.evidence import WINDOW
from ..verdict.judge import LEVELS, Verdict
from .cine import CAVITY, MYOCARDIUM, separation
from .refinement import sample_slices

if TYPE_CHECKING:
    from .tracking import TrackedCine

__all__ = ["LIMITS", "Limit", "find_evidence", "judge_cine"]

MARGIN = 6  # voxels around the labels in which images are compared
QUARTER = 0.25  # of the slices may be worse than is said: at the base they leave the heart
WHOLE_CYCLE = 12  # frames, from which on neighbours are so near in time that a jump between them is a fault


@dataclass(frozen=True)
class Limit:
    """The usual values of a measure.

    Args:
        low: what is less makes a cine doubtful.
        high: what is more does.
        text: how that is said, of its ``value``.
        failed_low: what is less makes it failed.
        failed_high: what is more does.
    """

    low: float
    high: float
    text: str
    failed_low: float = -math.inf
    failed_high: float = math.inf

    def level(self, value: float) -> int:
        """Return the place in :data:`LEVELS`; what is not a number has failed."""
        if not self.failed_low <= value <= self.failed_high:
            return 2
        return 0 if self.low <= value <= self.high else 1


LIMITS: Mapping[str, Limit] = {
    "agreement": Limit(
        0.55,
        math.inf,
        "a frame is less like the reference frame, after the registration, than usual: agreement {value:.2f}",
        failed_low=0.4,
    ),
    "slice_agreement": Limit(
        0.5, math.inf, "slices are less alike in a frame than usual: agreement {value:.2f}", failed_low=0.3
    ),
    "label_fit": Limit(
        0.4,
        math.inf,
        "the label separates cavity and wall worse than usual: {value:.2f} of the variance of their intensities",
        failed_low=0.25,
    ),
    "travel": Limit(
        0.0, 1.35, "the heart moves to and fro: {value:.1f} times the way to end-systole and back", failed_high=1.6
    ),
    "closure": Limit(
        0.0, 0.5, "the cycle does not close: from the last frame to the first, {value:.0%} of the largest motion"
    ),
    "folding_percent": Limit(0.0, 0.5, "the displacement folds: {value:.1f} % of the voxels"),
    "volume_jump": Limit(0.0, 0.5, "the volume of the cavity changes by {value:.0%} from one frame to the next"),
    "ejection_fraction": Limit(5.0, 85.0, "an ejection fraction of {value:.0f} % is not plausible"),
    "circumferential": Limit(-60.0, 0.0, "a circumferential strain of {value:.0f} % at end-systole is not plausible"),
    "radial": Limit(0.0, 100.0, "a radial strain of {value:.0f} % at end-systole is not plausible"),
}


def find_evidence(tracked: TrackedCine) -> dict[str, float]:
    """Measure what a verdict on a cine is made of.

    Args:
        tracked: the tracked cine.

    Returns:
        ``agreement``: of each frame, carried to the reference frame, with that one, in the surroundings of the label,
        see :func:`scripts.verdict.evidence.agreement`; the lowest of all frames.
        ``slice_agreement``: the same, of the slice that a quarter of the slices of a frame are below.
        ``label_fit``: by :func:`~scripts.heart.cine.separation` of cavity and wall in the reference frame, the one that
        a quarter of the slices are below.
        ``travel``: how far the heart moves over the cycle, over twice its largest distance from the reference frame;
        1 where it comes back the way it went.
        ``closure``: the part of the largest distance that lies between the last and the first frame.
        ``folding_percent``: the percentage of voxels around the label that fold, in the worst frame.
        ``volume_jump``: the largest change of the volume of the cavity between neighbouring frames, as a fraction of
        the larger one.
        ``ejection_fraction``, ``circumferential``, ``radial``: percent, of the left ventricle at end-systole.

        What cannot be measured is left out: ``travel``, ``closure`` and ``volume_jump`` of fewer frames than
        :data:`WHOLE_CYCLE`, the others without a label.
    """
    found = {**_of_images(tracked), **_of_motion(tracked)}
    cavity, wall = (tracked.cine.mask(name) for name in (CAVITY, MYOCARDIUM))
    if cavity is not None and wall is not None:
        found["label_fit"] = _label_fit(tracked.cine.frames[tracked.reference].as_tensor()[0].numpy(), cavity, wall)
    volumes, systole = tracked.volumes.get(CAVITY), tracked.end_systole
    if volumes is not None:
        found["ejection_fraction"] = 100 * float(1 - volumes[systole] / volumes[tracked.reference])
        if len(volumes) >= WHOLE_CYCLE:
            following = np.roll(volumes, -1)
            found["volume_jump"] = float((np.abs(following - volumes) / np.maximum(following, volumes)).max())
    if tracked.strain is not None:
        found["circumferential"] = 100 * float(tracked.strain.circumferential["global"][systole])
        found["radial"] = 100 * float(tracked.strain.radial["global"][systole])
    return found


def judge_cine(evidence: Mapping[str, float], warnings: Sequence[str] = ()) -> Verdict:
    """Judge a tracked cine by :data:`LIMITS`.

    Args:
        evidence: the measures of :func:`find_evidence`.
        warnings: what was said during the tracking; a cine with a warning is doubtful.
    """
    levels = {name: LIMITS[name].level(value) for name, value in evidence.items()}
    reasons = [LIMITS[name].text.format(value=evidence[name]) for name, level in levels.items() if level]
    level = max([int(bool(warnings)), *levels.values()])
    return Verdict(LEVELS[level], (*reasons, *warnings))


def _of_images(tracked: TrackedCine) -> dict[str, float]:
    """How well the frames agree with the reference frame, each scaled to [0, 1], slice by slice."""
    i, j, k = tracked.surroundings(MARGIN)
    frames = [frame.as_tensor()[0, :, :, k].float().movedim(-1, 0)[:, None] for frame in tracked.cine.frames]
    points = lattice(frames[0].shape[2:])[:, i, j]
    fixed = _scaled(frames[tracked.reference][:, :, i, j])
    worst = []
    for t, frame in enumerate(frames):
        if t != tracked.reference:
            places = points + tracked.ddf[t, :, i, j, k].movedim(-1, 0)
            warped = _scaled(sample_slices(frame.contiguous(), places))
            covariance, *variances = local_moments(fixed, warped, WINDOW)[:3]
            sums = torch.stack([covariance, torch.maximum(*variances)]).flatten(2).sum(2).double().numpy()
            worst.append((_agreement(sums.sum(1)), float(np.quantile(_agreement(sums), QUARTER))))
    whole, quarter = np.min(worst, 0).tolist()
    return {"agreement": whole, "slice_agreement": quarter}


def _agreement(sums: np.ndarray) -> Any:
    """As :func:`scripts.verdict.evidence.agreement`, of sums of the covariance and the larger variance, (2, ...)."""
    covariance, variance = sums
    return np.where(variance > 0, covariance / np.where(variance > 0, variance, 1), -1.0)  # flat ones never agree


def _scaled(images: torch.Tensor) -> torch.Tensor:
    return scale(images, find_range(images.numpy()))


def _of_motion(tracked: TrackedCine) -> dict[str, float]:
    """Whether the heart goes one way and comes back, and whether the displacement folds."""
    i, j, k = tracked.surroundings(MARGIN)
    found = {"folding_percent": 100 * float(_folded(tracked.ddf[:, :, i, j, k]).max())}
    if len(tracked.ddf) >= WHOLE_CYCLE:
        label = tracked.cine.label
        points = tracked.ddf.flatten(2) if label is None else tracked.ddf[:, :, label.as_tensor()[0] != 0]
        steps = torch.hypot(*(points.roll(-1, 0) - points).unbind(1)).mean(1)
        farthest = float(torch.hypot(*points.unbind(1)).mean(1).max())
        if farthest > 0:
            found["travel"] = float(steps.sum()) / (2 * farthest)
            found["closure"] = float(steps[-1]) / farthest
    return found


def _folded(ddf: torch.Tensor) -> torch.Tensor:
    """The part of the voxels of each frame, (T, 2, X, Y, Z), whose determinant by forward differences is not positive.

    All frames at once, which takes a fifth of the time of :func:`~scripts.deformation.jacobian.jacobian_determinant`.
    """
    along_i = ddf[:, :, 1:, :-1] - ddf[:, :, :-1, :-1]
    along_j = ddf[:, :, :-1, 1:] - ddf[:, :, :-1, :-1]
    determinant = (1 + along_i[:, 0]) * (1 + along_j[:, 1]) - along_i[:, 1] * along_j[:, 0]
    return (determinant <= 0).float().mean((1, 2, 3))


def _label_fit(image: np.ndarray, cavity: np.ndarray, wall: np.ndarray) -> float:
    slices = np.flatnonzero(cavity.any((0, 1)) & wall.any((0, 1)))
    fits = [separation(*(part[..., [z]] for part in (image, cavity, wall))) for z in slices]
    return float(np.quantile(fits, QUARTER)) if fits else 0.0
