"""Registers all frames of a cine to one of them, around the heart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.utils import convert_to_tensor

from ..deformation.grid import apply_affine, fade, lattice, sample
from ..images.intensities import find_range
from .cine import Cine
from .refinement import invert_slices, refine, sample_slices

if TYPE_CHECKING:
    from ..registration import Registration

__all__ = ["periodic", "register_frames"]

HARMONICS = 8  # of the heart rate, to which the motion of a point is limited
LEAST_FRAMES = 12  # fewer frames are not smoothed in time
SEEN = 8  # frames of a longer cine that the network sees at least
STEPS = 3  # of the refinement of each frame, which begins with what was found in the frame before
STEPS_APART = 5  # where frames are so few that they lie far apart
INVERSIONS = 40  # iterations of the inverse of the network's displacement, at most
SAME_SLICE = 1e-4  # voxels by which points may be off their slice
MARGIN = 16  # voxels of the network's grid around the label in which the heart is tracked


def register_frames(registration: Registration, cine: Cine, reference: int) -> torch.Tensor:
    """Register every frame to the reference frame.

    The network sees every frame of a short cine, and at least ``SEEN`` of a longer one; between these, the displacement
    is interpolated. From there, every frame is refined by steps of its own, see :func:`refine`, in place of those of
    the network. The motion of each point is then limited to ``HARMONICS`` harmonics of the heart rate, which makes it
    periodic.

    Args:
        registration: with a network for 2D images.
        cine: the cine; if it has a label of the reference frame, only the surroundings of the label are registered.
        reference: the frame whose points are tracked.

    Returns:
        displacement in voxels from the reference frame to each frame, shape (T, 2, X, Y, Z).
    """
    registration = registration.without_refinement()
    still = cine.frames[reference]
    grid = registration.preprocessing({"fixed": still, "moving": still})
    affine, shape = grid["fixed"].affine.double(), grid["fixed"].shape[1:]
    images = _on_grid(cine, affine, shape, grid["intensity_range"])
    if cine.label is not None:
        window = _window(cine, affine, shape)
        images = images[:, window[0], window[1]]
        affine = affine @ _translation([float(part.start) for part in window])
    ddf = _refined(images.movedim(-1, 1).contiguous(), _coarse(registration, images, reference), reference)
    return _to_native(periodic(ddf), affine, still.affine.double(), still.shape[1:])


def _on_grid(cine: Cine, affine: torch.Tensor, shape: torch.Size, limits: tuple[float, float] | None) -> torch.Tensor:
    """The frames on the grid of the network, each scaled to [0, 1] by itself as in a pair, shape (T, X, Y, Z)."""
    frames = torch.cat([convert_to_tensor(frame, track_meta=False) for frame in cine.frames])
    points = apply_affine(torch.linalg.solve(cine.frames[0].affine.double(), affine), lattice(shape))
    images = _sample_stack(frames, points)
    for image in images:
        low, high = limits or find_range(image.numpy()) or (0.0, 1.0)
        image.sub_(low).div_(high - low).clamp_(0, 1)
    return images


def _window(cine: Cine, affine: torch.Tensor, shape: torch.Size) -> list[slice]:
    """The part of the grid, along both axes of the plane, in which the label and a margin lie."""
    assert cine.label is not None
    label = convert_to_tensor(cine.label, track_meta=False)[0]
    to_grid = torch.linalg.solve(affine, cine.label.affine.double())
    places = apply_affine(to_grid, label.nonzero().T.double())[:2]
    low = (places.amin(1) - MARGIN).floor().clamp(min=0).int().tolist()
    high = (places.amax(1) + MARGIN + 1).ceil().int().tolist()
    return [slice(first, min(last, n)) for first, last, n in zip(low, high, shape)]


def _coarse(registration: Registration, images: torch.Tensor, reference: int) -> torch.Tensor:
    """The network's displacement to each frame, shape (T, Z, 2, X, Y); between those it sees, interpolated linearly.

    The network registers the reference frame to each frame, and the result is inverted: a cavity that opens is easier
    to find than one that closes.
    """
    count, step = len(images), max(1, len(images) // SEEN)
    seen = torch.arange(0, count, step)
    known = torch.zeros(len(seen), images.shape[-1], 2, *images.shape[1:3])
    points = lattice(images.shape[1:3])
    for place, t in enumerate(seen.tolist()[1:], 1):
        found = registration.predict(torch.stack([images[reference], images[(reference + t) % count]]))
        slices = found[:2].movedim(-1, 0).contiguous()
        known[place] = invert_slices(slices, points, -slices, INVERSIONS)
    after_reference = (torch.arange(count) - reference) % count
    last = after_reference // step
    part = (after_reference - seen[last]) / torch.diff(seen, append=torch.tensor([count]))[last]
    return torch.lerp(known[last], known[(last + 1) % len(seen)], part.view(-1, 1, 1, 1, 1))


def _refined(slices: torch.Tensor, start: torch.Tensor, reference: int) -> torch.Tensor:
    """Refine displacements (T, Z, 2, X, Y) of slices (T, Z, X, Y), from the reference frame forwards and backwards.

    What the refinement of a frame has changed is added to the start of the next one, so that few steps are enough.
    """
    count = len(slices)
    steps = STEPS if count >= LEAST_FRAMES else STEPS_APART
    ddf = torch.zeros_like(start)
    for direction, length in ((1, count // 2), (-1, (count - 1) // 2)):
        change = torch.zeros_like(start[0])
        for distance in range(1, length + 1):
            t = (reference + direction * distance) % count
            ddf[t] = refine(slices[reference], slices[t], start[t] + change, steps)
            change = ddf[t] - start[t]
    return ddf


def periodic(ddf: torch.Tensor) -> torch.Tensor:
    """Limit each point's motion, shape (T, ...), to the lowest harmonics of a cycle of ``LEAST_FRAMES`` or more."""
    count = len(ddf)
    if count < LEAST_FRAMES:
        return ddf
    kept = torch.arange(count // 2 + 1) <= min(HARMONICS, count // 3)
    projection = torch.fft.irfft(torch.fft.rfft(torch.eye(count), dim=0) * kept[:, None], n=count, dim=0)
    return (projection @ ddf.flatten(1)).view_as(ddf)


def _to_native(
    ddf: torch.Tensor, affine: torch.Tensor, native_affine: torch.Tensor, native_shape: torch.Size
) -> torch.Tensor:
    """Carry displacements (T, Z, 2, X, Y) on a grid with this affine to the grid of the cine, (T, 2, X, Y, Z)."""
    volumes = ddf.movedim(1, -1)
    to_grid = torch.linalg.solve(affine, native_affine)
    points = apply_affine(to_grid, lattice(native_shape))
    native = _sample_stack(volumes.flatten(0, 1), points).view(len(ddf), 2, *native_shape)
    native *= fade(points, volumes.shape[2:], affine)
    linear = torch.linalg.inv(to_grid)[:2, :2].float()
    if torch.equal(linear, torch.diag(linear.diag())):
        return native * linear.diag().view(2, 1, 1, 1)
    return torch.einsum("ij,tjxyz->tixyz", linear, native)


def _sample_stack(volumes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """:func:`sample` of volumes (C, X, Y, Z), slice by slice, which is faster, where the points keep to the slices."""
    levels = torch.arange(volumes.shape[-1])
    if points.shape[-1] != len(levels) or (points[2] - levels).abs().max() > SAME_SLICE:
        return sample(volumes, points)
    slices = volumes.movedim(-1, 0).contiguous()
    return sample_slices(slices, points[:2].movedim(-1, 0).to(volumes.dtype)).movedim(0, -1).contiguous()


def _translation(start: list[float]) -> torch.Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[: len(start), 3] = torch.tensor(start, dtype=torch.float64)
    return matrix
