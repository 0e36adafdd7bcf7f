"""The insertions of the right ventricle into the left one, where the septum begins and ends, as a user gives them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ..deformation.points import read_points
from ..support.errors import InputError

__all__ = ["Insertions", "parse_insertions", "read_insertions"]

Insertions = str | Path | Sequence[Sequence[float]] | np.ndarray
"""The anterior insertion, then the inferior one: a file of points, or RAS millimetres [[x, y, z], [x, y, z]]."""

EXPECTED = (
    "expected two points in mm, the anterior and the inferior insertion of the right ventricle: [[x,y,z],[x,y,z]], or "
    "a file of them."
)


def parse_insertions(text: str) -> Insertions:
    """Return the coordinates in a text that begins with ``[``; any other text is the name of a file.

    Raises:
        InputError: when they cannot be read.
    """
    if not text.lstrip().startswith("["):
        return text
    try:
        points: Insertions = json.loads(text)
    except ValueError as error:
        raise InputError(f"rv_insertion is {text}: {EXPECTED}") from error
    return points


def read_insertions(source: Insertions, cine: nib.Nifti1Image) -> np.ndarray:
    """Return the insertions in voxels of a cine, the anterior one first, shape (2, 3).

    Args:
        source: see :data:`Insertions`.
        cine: an image (X, Y, Z, T).

    Raises:
        InputError: when they are not two points in the cine.
    """
    points = read_points(source, role="rv_insertion").points if isinstance(source, str | Path) else _array(source)
    if points.shape != (2, 3) or not np.isfinite(points).all():
        raise InputError(f"rv_insertion is {source}: {EXPECTED}")
    voxels = np.asarray(nib.affines.apply_affine(np.linalg.inv(cine.affine), points))
    for point, voxel in zip(points, voxels):
        if not all(-0.5 <= place <= n - 0.5 for place, n in zip(voxel, cine.shape)):
            shown = ", ".join(f"{x:g}" for x in point)
            raise InputError(f"rv_insertion: ({shown}) mm lies outside of the cine: expected RAS mm of its header.")
    return voxels


def _array(points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """The points as an array; an empty one if they are no numbers."""
    try:
        return np.array(points, float)
    except (TypeError, ValueError):
        return np.empty(0)
