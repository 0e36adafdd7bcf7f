"""Compares methods of tracking on cines whose motion is known, see :mod:`scripts.tools.cines`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from ...deformation.grid import by_image
from ...deformation.jacobian import jacobian_determinant
from ...heart import Cine, TrackedCine, label_names, read_cine, register_frames, track
from ...heart.frames import periodic
from ...heart.strain import measure_strain
from ...images.loading import open_image
from ...registration import Registration
from ...results.tables import text_table
from ..cines import Motion, make_cine, still_cine, true_motion
from .classical import demons, greedy
from .machine import cpu_seconds

__all__ = ["print_cines"]

Register = Callable[[Cine, int], torch.Tensor]
GREEDY = "-m NCC 2x2 -n 100x100x50 -s 1.732vox 0.707vox"
DEMONS: dict[str, Any] = {"sigma": 1.5, "iterations": (50, 50, 50)}
DIGITS = {"folds %": 4, "CPU s": 1}
SCALED = (1, 99)  # percentiles of a frame that become 0 and 1


def methods() -> dict[str, Register]:
    """The ways to track, by their names."""
    return {
        "GraDIRN": partial(register_frames, Registration.load("cardiac")),
        "Greedy NCC 2x2": partial(_slice_by_slice, partial(greedy, options=GREEDY)),
        "demons of SimpleITK": partial(_slice_by_slice, partial(demons, **DEMONS)),
    }


def print_cines(data: Path, patients: Sequence[int], motion: Motion, wanted: str = "") -> None:
    """Print a table of errors: the mean over the patients, one row per method.

    Args:
        data: the folder of ACDC.
        patients: numbers of its patients.
        motion: the law of the motion.
        wanted: only methods with this text in their names.
    """
    rows: list[tuple[str, list[float | None]]] = []
    columns: list[str] = []
    for name, register in methods().items():
        if wanted.lower() not in name.lower():
            continue
        found = []
        for patient in patients:
            cine, truth = _cine_of(data / f"patient{patient:03d}", motion)
            start = cpu_seconds()
            tracked = track(cine, register)
            found.append({**errors(tracked, truth), "CPU s": cpu_seconds() - start})
            print(patient, name, {key: round(value, 3) for key, value in found[-1].items()}, flush=True)
        columns = list(found[0])
        rows.append((name, [float(np.mean([row[key] for row in found if key in row])) for key in columns]))
    print(text_table(("method", *columns), rows, [DIGITS.get(column, 2) for column in columns]))


def errors(tracked: TrackedCine, truth: TrackedCine) -> dict[str, float]:
    """Compare a motion with the true one.

    Returns:
        the end-point error in the myocardium in voxels, over the cycle and at end-systole; by how much peak global
        strain (percentage points) and the largest twist (degrees) are off, without sign; the largest mean step from the
        last frame to the first beyond the true one, in voxels; and the percentage of voxels that fold.
    """
    myocardium = truth.cine.mask("Myo")
    difference = (tracked.ddf - truth.ddf).norm(dim=1).numpy()[:, myocardium]
    found, known = (measure_strain(motion) for motion in (tracked, truth))
    assert found is not None
    assert known is not None
    systole = truth.end_systole
    folds = [float((jacobian_determinant(by_image(field, 2)) <= 0).double().mean()) for field in tracked.ddf]
    step = ((tracked.ddf[-1] - tracked.ddf[0]) - (truth.ddf[-1] - truth.ddf[0])).norm(dim=0).numpy()[myocardium]
    result = {
        "EPE": float(difference.mean()),
        "EPE at ES": float(difference[systole].mean()),
        "circumferential": abs(found.circumferential["global"][systole] - known.circumferential["global"][systole]),
        "radial": abs(found.radial["global"][systole] - known.radial["global"][systole]),
    }
    result = {key: value * (1 if key.startswith("EPE") else 100) for key, value in result.items()}
    if found.twist is not None and known.twist is not None:
        result["twist"] = abs(found.twist[systole] - known.twist[systole])
    return {**result, "closure": float(step.mean()), "folds %": 100 * float(np.mean(folds))}


def _cine_of(folder: Path, motion: Motion) -> tuple[Cine, TrackedCine]:
    """A cine made of the end-diastolic frame of a patient, and its motion."""
    image, label = (next(folder.glob(f"*_ED{end}.nii.gz")) for end in ("", "_gt"))
    names = label_names("acdc")
    truth = true_motion(read_cine(still_cine(open_image(image, "image")), label, 0, names), motion)
    frames = nib.Nifti1Image(make_cine(truth, motion), truth.cine.image.affine)
    return read_cine(frames, label, 0, names), truth


def _slice_by_slice(tool: Callable[[np.ndarray, np.ndarray], np.ndarray], cine: Cine, reference: int) -> torch.Tensor:
    """Register every slice of every frame by another tool, and make the motion periodic, shape (T, 2, X, Y, Z)."""
    frames = [_scaled(frame.as_tensor()[0].numpy()) for frame in cine.frames]
    fixed = frames[reference]
    ddf = np.zeros((len(frames), 2, *fixed.shape), np.float32)
    for t, moving in enumerate(frames):
        for z in range(fixed.shape[2]) if t != reference else ():
            ddf[t, ..., z] = tool(fixed[..., z], moving[..., z])
    return periodic(torch.from_numpy(ddf))


def _scaled(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, SCALED)
    return np.clip((values - low) / (high - low), 0, 1)
