"""The files of one tracked cine, written together or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from ..deformation.formats import image_like, label_type, save_image
from ..images.frame import RAS_TO_LPS
from ..results.summary import write_csv
from ..support.bundle import versions
from ..support.errors import InputError
from ..support.files import finite, prepare_folder, read_record, remove_debris, replace_files, sha256
from .cine import MYOCARDIUM, Cine
from .drawing import draw_bullseye, draw_curves, draw_movie
from .strain import Strain, green
from .tracking import TrackedCine

__all__ = ["OUTPUTS", "displacement_image", "measures", "write_cine_results"]

OUTPUTS = (
    "displacement.nii.gz",
    "label.nii.gz",
    "volumes.csv",
    "strain_sax.csv",
    "rotation.csv",
    "curves.png",
    "bullseye.png",
    "movie.gif",
    "movie.mp4",
    "overview.png",
    "metrics.json",
)
DENSITY = 1.05  # g / ml, of the myocardium


def measures(tracked: TrackedCine, strain: Strain | None) -> dict[str, Any]:
    """Return what is known of a heart, in nested dictionaries as in ``metrics.json``."""
    reference, systole, volumes = tracked.reference, tracked.end_systole, tracked.volumes
    found: dict[str, Any] = {"end_diastole_frame": reference, "end_systole_frame": systole}
    cavities = {name: values for name, values in volumes.items() if name != MYOCARDIUM}
    if cavities:
        found["end_diastolic_volume_ml"] = {name: float(values[reference]) for name, values in cavities.items()}
        found["end_systolic_volume_ml"] = {name: float(values[systole]) for name, values in cavities.items()}
        found["stroke_volume_ml"] = {name: float(v[reference] - v[systole]) for name, v in cavities.items()}
        found["ejection_fraction_percent"] = {
            name: 100 * float(1 - values[systole] / values[reference]) for name, values in cavities.items()
        }
    if MYOCARDIUM in volumes:
        found["myocardial_mass_g"] = DENSITY * float(volumes[MYOCARDIUM][reference])
    if strain is not None:
        found["peak_circumferential_percent"] = {n: 100 * float(v.min()) for n, v in strain.circumferential.items()}
        found["peak_radial_percent"] = {name: 100 * float(values.max()) for name, values in strain.radial.items()}
        if strain.twist is not None:
            peak = int(np.abs(strain.twist).argmax())
            found["peak_twist_degrees"], found["peak_twist_frame"] = float(strain.twist[peak]), peak
            rate = _rate(strain.twist, tracked.cine.frame_seconds) * -np.sign(strain.twist[peak])
            found["peak_untwisting_degrees_per_s"] = float(rate.max())
    found["motion_voxels"] = [float(value) for value in tracked.motion]
    return found


def write_cine_results(
    tracked: TrackedCine, strain: Strain | None, folder: Path, extra: Mapping[str, Any], overwrite: bool = False
) -> None:
    """Write the files of :data:`OUTPUTS`; those without a label, a myocardium or ffmpeg are left out.

    Args:
        tracked: the tracked cine.
        strain: its strain, or None.
        folder: the folder for the files; it is made if it does not exist.
        extra: further entries of ``metrics.json``.
        overwrite: replace files with these names.

    Raises:
        InputError: when there are such files, or the folder cannot be written to.
    """
    prepare_folder(folder)
    remove_debris(folder)
    there = [name for name in OUTPUTS if os.path.lexists(folder / name)]
    if there and not overwrite:
        what = "the result of a cine" if read_record(folder / OUTPUTS[-1]) else f"a file {there[0]}"
        raise InputError(f"output_dir: {folder} holds {what}: expected an empty folder, or --overwrite true.")
    found = measures(tracked, strain)
    with replace_files(folder, OUTPUTS) as temporary:
        save_image(displacement_image(tracked), temporary / "displacement.nii.gz")
        if tracked.cine.label is not None:
            label = tracked.carry_labels()
            stored = np.asfortranarray(label, label_type(label))  # the order of the file
            save_image(image_like(stored, tracked.cine.image), temporary / "label.nii.gz")
            _write_volumes(tracked, temporary / "volumes.csv")
            draw_movie(tracked, label, temporary)
        if strain is not None:
            _write_strain(tracked.cine, strain, temporary / "strain_sax.csv")
            if strain.rotation:
                _write_rotation(strain, temporary / "rotation.csv")
            draw_bullseye(strain, temporary / "bullseye.png")
        draw_curves(tracked, strain, temporary / "curves.png")
        said = {**tracked.verdict.as_dict(), "evidence": tracked.evidence}
        content = {"verdict": said, **found, "warnings": tracked.warnings, **extra, "versions": versions()}
        (temporary / "metrics.json").write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def checksums(files: Mapping[str, str | Path | None]) -> dict[str, str]:
    """Return the checksum of each file that was given."""
    return {name: sha256(Path(path)) for name, path in files.items() if path is not None}


def displacement_image(tracked: TrackedCine) -> nib.Nifti1Image:
    """Return the displacements in mm, LPS, (X, Y, Z, T, 3), vector intent 1007, as ITK reads a series of fields."""
    linear = torch.from_numpy(RAS_TO_LPS[:, None] * tracked.cine.image.affine[:3, :2]).float()
    count, _, *shape = tracked.ddf.shape
    vectors = np.empty((*shape, count, 3), np.float32, order="F")  # the order of the file
    for t, field in enumerate(tracked.ddf):
        for axis, row in enumerate(linear):
            vectors[..., t, axis] = torch.tensordot(row, field, dims=1).numpy()
    image = image_like(vectors, tracked.cine.image)
    image.header.set_intent("vector", name="")
    return image


def _write_volumes(tracked: TrackedCine, path: Path) -> None:
    names = [f"{name}_ml" for name in tracked.volumes]
    rows = [
        {"frame": t, **{f"{name}_ml": float(values[t]) for name, values in tracked.volumes.items()}}
        for t in range(len(tracked.ddf))
    ]
    write_csv(rows, ["frame", *names], path)


def _write_strain(cine: Cine, strain: Strain, path: Path) -> None:
    kinds = {"circumferential": strain.circumferential, "radial": strain.radial}
    rows = []
    for segment in strain.circumferential:
        rates = {kind: _rate(100 * values[segment], cine.frame_seconds) for kind, values in kinds.items()}
        for t in range(len(cine.frames)):
            row: dict[str, Any] = {"frame": t, "segment": segment}
            for kind, values in kinds.items():
                row[f"{kind}_percent"] = 100 * float(values[segment][t])
                row[f"{kind}_green_percent"] = 100 * float(green(values[segment][t]))
                rate = float(rates[kind][t])
                row[f"{kind}_percent_per_s"] = None if math.isnan(rate) else rate
            rows.append(row)
    write_csv(rows, list(rows[0]), path)


def _write_rotation(strain: Strain, path: Path) -> None:
    columns = {f"{name}_degrees": values for name, values in strain.rotation.items()}
    if strain.twist is not None:
        columns["twist_degrees"] = strain.twist
    count = len(next(iter(columns.values())))
    rows = [{"frame": t, **{name: float(values[t]) for name, values in columns.items()}} for t in range(count)]
    write_csv(rows, ["frame", *columns], path)


def _rate(values: np.ndarray, frame_seconds: float | None) -> np.ndarray:
    """The change per second over the periodic cycle, by central differences; NaN without the time of a frame."""
    if frame_seconds is None:
        return np.full(len(values), math.nan)
    return (np.roll(values, -1) - np.roll(values, 1)) / (2 * frame_seconds)
