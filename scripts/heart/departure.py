"""Finds frames in which the basal slice has left the left ventricle, whose base moves through the slices."""

from __future__ import annotations

import numpy as np
import torch

from ..deformation.grid import as_volume, by_image, lattice
from ..deformation.jacobian import jacobian_determinant
from .cine import CAVITY, MYOCARDIUM, Cine, separation
from .refinement import sample_slices

__all__ = ["areas", "find_departed"]

LEAST_SEPARATED = 0.4  # in the reference frame, without which nothing can be said
LESS_SEPARATED = 0.15  # of the variance of intensities, from the reference frame to a frame that the slice has left


def areas(ddf: torch.Tensor) -> torch.Tensor:
    """By how much a displacement in voxels, (2, X, Y, Z), changes areas in the plane: its determinant, (X, Y, Z)."""
    return as_volume(jacobian_determinant(by_image(ddf, 2), central=True), 2)


def find_departed(cine: Cine, reference: int, ddf: torch.Tensor) -> dict[int, int]:
    """Find the frames in which the basal slice has left the left ventricle.

    The cavity is smaller there than in the reference frame, and where the motion takes cavity and wall, this slice
    separates them clearly worse than in the reference frame: it shows the atrium, or the outflow tract.

    Args:
        cine: a cine with a label of the reference frame.
        reference: the reference frame.
        ddf: displacement in voxels from there to each frame, (T, 2, X, Y, Z).

    Returns:
        the slice, for each such frame; empty without a label of the wall, or where it does not show.
    """
    cavity, wall = cine.mask(CAVITY), cine.mask(MYOCARDIUM)
    if cavity is None or wall is None:
        return {}
    basal = cine.from_base[0]
    masks = cavity[..., [basal]], wall[..., [basal]]
    points = lattice(cavity.shape[:2])
    known = separation(cine.frames[reference].as_tensor()[0, ..., [basal]].numpy(), *masks)
    places = np.argwhere(cavity)
    window = tuple(  # with the neighbours, of which the determinant is made
        slice(max(int(first) - 1, 0), int(last) + 2) for first, last in zip(places.min(0), places.max(0))
    )
    found: dict[int, int] = {}
    if known < LEAST_SEPARATED:
        return found
    for t, frame in enumerate(cine.frames):
        if t != reference and areas(ddf[t][:, *window]).numpy()[cavity[window]].mean() < 1:
            image, moved = frame.as_tensor()[..., basal], points + ddf[t, ..., basal]
            shown = sample_slices(image[None], moved[None])[0, 0, ..., None].numpy()
            if separation(shown, *masks) < known - LESS_SEPARATED:
                found[t] = basal
    return found
