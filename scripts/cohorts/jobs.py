"""What ``python -m scripts.transform apply`` is to do: one job from options, or many from a datalist."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..support.errors import InputError
from ..support.files import user_path
from .datalist import read_json_list

__all__ = ["Job", "read_jobs"]


@dataclass(frozen=True)
class Job:
    """Images of one moving subject, and where they go.

    Args:
        moving: images or series (X, Y, Z, T); label maps with the interpolation ``nearest`` or ``label``.
        reference: the image whose grid the results get.
        transform: files in the order in which a point of the reference passes, and whether it passes backwards.
        output: one file for each moving image.
        interpolation: ``linear``, ``nearest``, ``label`` (each label linearly, then the largest) or ``spline``.
        fill: value outside of a moving image; by default its smallest value, or 0 for label maps.
        images: the registered images, fixed and moving, for transforms that do not hold their frames.

    Raises:
        InputError: when a part is missing, or there are more or fewer outputs than moving images.
    """

    moving: tuple[Path, ...]
    reference: Path
    transform: tuple[tuple[Path, bool], ...]
    output: tuple[Path, ...]
    interpolation: str = "linear"
    fill: float | None = None
    images: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if len(self.moving) != len(self.output):
            counts = f"{len(self.moving)} moving images and {len(self.output)} outputs"
            raise InputError(f"found {counts}: expected one for each.")

    @property
    def inputs(self) -> set[Path]:
        return {*self.moving, self.reference, *self.images, *(file for file, _ in self.transform)}


def read_jobs(datalist: str | Path) -> list[Job]:
    """Read a JSON file with a list of dictionaries, whose keys are the arguments of :class:`Job`.

    Paths are relative to the folder of the file. One file may stand in place of a list of one. A transform that is
    passed backwards is written ``{"inverse": FILE}``.

    Raises:
        InputError: when the file or one of its entries does not have this form.
    """
    path = user_path(datalist, "datalist")
    entries = read_json_list(path, "jobs", "[{moving: ..., reference: ..., transform: ..., output: ...}, ...]")
    return [_job(entry, f"{path}, entry {index}", path.parent) for index, entry in enumerate(entries)]


def _job(entry: Any, where: str, root: Path) -> Job:
    known = [field.name for field in fields(Job)]
    if not isinstance(entry, dict):
        raise InputError(f"{where} is a {type(entry).__name__}: expected a dictionary with {', '.join(known)}.")
    unknown = sorted(set(entry) - set(known))
    if unknown:
        hint = ', or {"inverse": FILE} as a transform' if unknown[0] == "inverse" else ""
        raise InputError(f"{where} has the unknown key '{unknown[0]}': expected {', '.join(known)}{hint}.")
    values = {key: value for key, value in entry.items() if value not in (None, "", [])}
    for key in known[:4]:
        if key not in values:
            raise InputError(f"{where} has no '{key}': expected {', '.join(known[:4])}.")

    def files(key: str, value: Any = None) -> tuple[Path, ...]:
        names = _listed(values.get(key, []) if value is None else value)
        return tuple(root / user_path(name, f"{where}, {key}") for name in names)

    steps = [(step, isinstance(step, dict) and set(step) == {"inverse"}) for step in _listed(values["transform"])]
    transform = [(files("transform", step["inverse"] if back else step), back) for step, back in steps]
    reference, images, fill = files("reference"), files("images"), values.get("fill")
    if len(reference) != 1 or len(images) not in (0, 2):
        raise InputError(f"{where}: expected one file as reference, and two as images.")
    if fill is not None and (isinstance(fill, bool) or not isinstance(fill, int | float)):
        raise InputError(f"{where} has the fill {fill!r}: expected a number.")
    try:
        return Job(
            moving=files("moving"),
            reference=reference[0],
            transform=tuple((file, back) for names, back in transform for file in names),
            output=files("output"),
            interpolation=values.get("interpolation", "linear"),
            fill=fill,
            images=images,
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
