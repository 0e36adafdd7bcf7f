"""Points as files: tables, Slicer's markups, and surfaces."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..images.frame import RAS_TO_LPS
from ..support.errors import InputError
from ..support.files import user_path

__all__ = ["PointFile", "read_points"]

FRAMES = ("ras", "lps")
SUFFIXES = (".csv", ".fcsv", ".mrk.json", ".vtk", ".vtp", ".gii")
RAS = {"ras": True, "0": True, "lps": False, "1": False}  # Slicer's names and numbers


@dataclass(frozen=True)
class PointFile:
    """The points of a file, and how to write the same file with other points.

    Args:
        points: in RAS millimetres, shape (N, 3), float64.
        write: takes such points and the path of a new file of the same format.
    """

    points: np.ndarray
    write: Callable[[np.ndarray, Path], Any]


def read_points(path: str | Path, frame: str = "ras", role: str = "points") -> PointFile:
    """Read points; all else that a file holds (names, further columns, triangles) is kept for the new file.

    Args:
        path: ``.csv`` with columns x, y, z, or without a header, x, y and z first; Slicer's ``.fcsv`` and
            ``.mrk.json``, which say their frame themselves; ``.gii``, in RAS; or ``.vtk`` and ``.vtp``.
        frame: ``ras`` or ``lps``, of ``.csv``, ``.vtk`` and ``.vtp``.
        role: what the file is, for messages.

    Raises:
        InputError: when the file does not hold points.
    """
    path = user_path(path, role)
    name = f"{role}: {path}"
    if frame not in FRAMES:
        raise InputError(f"--frame is '{frame}': expected {' or '.join(FRAMES)}.")
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"{name} is not named as a file of points: expected one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise InputError(f"{name} does not exist: expected a file of points.")
    signs = np.ones(3) if frame == "ras" else RAS_TO_LPS
    try:
        if suffix == ".csv":
            found = _csv(path, name, signs)
        elif suffix == ".fcsv":
            found = _fcsv(path, name)
        elif suffix == ".mrk.json":
            found = _markups(path, name)
        elif suffix == ".gii":
            found = _gifti(path)
        else:
            found = _vtk(path, name, signs)
    except InputError:
        raise
    except Exception as error:  # csv, json, nibabel and VTK each have their own errors
        raise InputError(f"{name} cannot be read as {suffix}; it may be damaged ({error}).") from error
    if len(found.points) == 0 or not np.isfinite(found.points).all():
        raise InputError(f"{name} holds no points, or some that are not finite: expected coordinates in mm.")
    return found


def _csv(path: Path, name: str, signs: np.ndarray) -> PointFile:
    rows = [row for row in csv.reader(io.StringIO(path.read_text("utf-8-sig"))) if row]
    header = [] if _are_numbers(rows[0][:3]) else [name.strip().lower() for name in rows[0]]
    if header and not {"x", "y", "z"} <= set(header):
        raise InputError(f"{name} has the columns {', '.join(rows[0])}: expected x, y and z.")
    columns = [header.index(name) for name in "xyz"] if header else [0, 1, 2]
    body = rows[1:] if header else rows

    def write(points: np.ndarray, file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerows(rows[:1] if header else [])
            writer.writerows(_replaced(row, columns, point * signs) for row, point in zip(body, points))

    return PointFile(_coordinates(body, columns) * signs, write)


def _fcsv(path: Path, name: str) -> PointFile:
    lines = path.read_text("utf-8-sig").splitlines()
    comments = {
        name.strip(" #").lower(): value.strip()
        for name, equals, value in (line.partition("=") for line in lines if line.startswith("#"))
        if equals
    }
    signs = _slicer_signs(name, comments.get("coordinatesystem", "0"))
    names = [name.strip() for name in comments.get("columns", "id,x,y,z").split(",")]
    columns = [names.index(name) for name in "xyz"]
    rows = [row for row in csv.reader(line for line in lines if line and not line.startswith("#")) if row]

    def write(points: np.ndarray, file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines if line.startswith("#"))
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerows(_replaced(row, columns, point * signs) for row, point in zip(rows, points))

    return PointFile(_coordinates(rows, columns) * signs, write)


def _markups(path: Path, name: str) -> PointFile:
    content = json.loads(path.read_bytes())
    groups = [
        (markup["controlPoints"], _slicer_signs(name, markup["coordinateSystem"])) for markup in content["markups"]
    ]
    placed = [(point, signs) for points, signs in groups for point in points if point.get("position")]

    def write(points: np.ndarray, file: Path) -> None:
        for (control, signs), point in zip(placed, points):
            control["position"] = (point * signs).tolist()
        file.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")

    points = [np.array(control["position"], dtype=np.float64) * signs for control, signs in placed]
    return PointFile(np.array(points).reshape(-1, 3), write)


def _gifti(path: Path) -> PointFile:
    surface: Any = nib.load(path)
    (array,) = surface.get_arrays_from_intent("NIFTI_INTENT_POINTSET")

    def write(points: np.ndarray, file: Path) -> None:
        array.data = points.astype(np.float32)
        nib.save(surface, file)

    return PointFile(np.asarray(array.data, dtype=np.float64), write)


def _vtk(path: Path, name: str, signs: np.ndarray) -> PointFile:
    try:
        import pyvista
    except ImportError as error:
        raise InputError(f"{name} needs PyVista, which is not installed: pip install pyvista.") from error
    mesh = pyvista.read(path)

    def write(points: np.ndarray, file: Path) -> None:
        mesh.points = points * signs
        mesh.save(file)

    return PointFile(np.asarray(mesh.points, dtype=np.float64) * signs, write)


def _slicer_signs(name: str, system: object) -> np.ndarray:
    frame = str(system).lower()
    if frame not in RAS:
        raise InputError(f"{name} is in the coordinate system '{system}': expected RAS or LPS.")
    return np.ones(3) if RAS[frame] else RAS_TO_LPS


def _are_numbers(words: list[str]) -> bool:
    try:
        return len([float(word) for word in words]) == 3
    except ValueError:
        return False


def _coordinates(rows: list[list[str]], columns: list[int]) -> np.ndarray:
    return np.array([[float(row[column]) for column in columns] for row in rows], dtype=np.float64).reshape(-1, 3)


def _replaced(row: list[str], columns: list[int], point: np.ndarray) -> list[str]:
    row = list(row)
    for column, value in zip(columns, point):
        row[column] = f"{value:.6f}"
    return row
