"""A viewer of whole volumes inside of the page: the library niivue, and the volumes of the worst pairs."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ..support.errors import InputError
from .entries import Entry
from .reading import Volumes

__all__ = ["BUDGET", "LIBRARY", "pack_library", "pack_pairs"]

LIBRARY = Path(__file__).parent / "page" / "niivue" / "niivue.umd.js"
BUDGET = 64 * 2**20  # bytes of the page for all volumes
MOST_VOXELS = 2**21  # of a volume, such as 128 x 128 x 128; larger ones are thinned
KEYS = ("fixed", "warped", "label_fixed", "label_warped", "jacobian", "error")
TOP = {"fixed": 1.0, "warped": 1.0, "jacobian": 2.0}  # values that are written as 255


def pack_library() -> str:
    """Return the library, compressed, as text."""
    return base64.b64encode(gzip.compress(LIBRARY.read_bytes(), 9, mtime=0)).decode()


def pack_pairs(entries: Sequence[Entry], budget: int = BUDGET) -> dict[str, dict[str, str]]:
    """Return the volumes of as many pairs as fit into the budget, the first ones, by name and key.

    They are NIfTI files of 8 bits in Base64, thinned to :data:`MOST_VOXELS`.
    """
    packed: dict[str, dict[str, str]] = {}
    for entry in entries:
        found = _pack(entry)
        budget -= sum(map(len, found.values()))
        if budget < 0:
            break
        packed[entry.name] = found
    return packed


def _pack(entry: Entry) -> dict[str, str]:
    """The volumes of one pair that can be read; those that cannot are named beside the pictures."""
    try:
        volumes = Volumes(entry)
    except InputError:
        return {}
    steps = _steps(volumes.grid.shape, volumes.grid.spacing)
    affine = volumes.grid.affine @ np.diag([*steps, 1])
    found = {}
    for key in KEYS:
        try:
            volume = volumes.read(key)
        except InputError:
            continue
        if volume is not None:
            thinned = volume[tuple(slice(None, None, step) for step in steps)]
            found[key] = _file(key, thinned, affine)
    return found


def _steps(shape: Sequence[int], spacing: np.ndarray) -> list[int]:
    """Every how many voxels are kept along each axis, so that few remain and their spacing is even."""
    steps = [1, 1, 1]
    while math.prod(-(-n // step) for n, step in zip(shape, steps)) > MOST_VOXELS:
        steps[int(np.argmin(spacing * steps))] += 1
    return steps


def _file(key: str, values: np.ndarray, affine: np.ndarray) -> str:
    slope = 1.0
    if key.startswith("label"):  # ids become 1, 2, 3, ...; beyond 255 they begin again
        ranks = np.unique(values, return_inverse=True)[1].reshape(values.shape)
        coded = np.where(values == 0, 0, 1 + (ranks - (values.min() == 0)) % 255)
    else:
        slope = (TOP.get(key) or max(float(values.max()), 1e-3)) / 255
        coded = np.clip(np.round(values / slope), 0, 255)
    image = nib.Nifti1Image(coded.astype(np.uint8), affine)
    image.header.set_slope_inter(slope, 0)
    image.header.set_intent("label" if key.startswith("label") else "none")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()
