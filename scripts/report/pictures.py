"""The pictures of one pair: slices of its images and fields, as small files inside of the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import map_coordinates

from ..results.overview import GREEN, MAGENTA, RED, colored, cuts, draw_grid, edges, enlarge, gray
from ..support.errors import InputError
from .entries import Entry
from .reading import Volumes, scaled

__all__ = ["ERROR_COLOURS", "THUMBNAIL", "Pictures", "Plane", "address", "draw_pair"]

Place = tuple[int, int, str]  # axis, index and name of a slice
Slices = dict[str, list[np.ndarray]]

IMAGES = ("fixed", "moving", "warped")
SIDE, THUMBNAIL = 380, 72  # pixels of the longest side
ROUND = (0.5, 1, 2, 5, 10, 20, 50)  # mm that the brightest colour of an error map may stand for
STEPS, GRID_STEPS = 32, 4  # colours of a map and greys of a grid, which take a third of the bytes of 256
QUALITY = 90  # of the pictures of images, in WebP; maps and outlines are written without loss
# from black through red to light yellow: Inferno by Stefan van der Walt and Nathaniel Smith, CC0
ERROR_COLOURS = np.array(
    [
        *((0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99)),
        *((212, 72, 66), (245, 125, 21), (250, 193, 39), (252, 255, 164)),
    ]
)


@dataclass(frozen=True)
class Plane:
    """One slice.

    Attributes:
        name: such as ``axis k = 12``.
        size: width and height in pixels.
        sides: the anatomical directions at the left, right, bottom and top, such as ``L``.
        layers: pictures as ``data:`` addresses: ``fixed``, ``moving``, ``warped``, ``label_fixed``, ``label_warped``,
            ``grid``, ``jacobian`` and ``error``, those that there are.
    """

    name: str
    size: tuple[int, int]
    sides: tuple[str, str, str, str]
    layers: dict[str, str]


@dataclass(frozen=True)
class Pictures:
    """The slices of a pair, a small picture of it, the error of the brightest colour in mm, and what is missing."""

    planes: list[Plane]
    thumbnail: str
    largest_error: float | None
    notes: list[str]


def draw_pair(entry: Entry) -> Pictures:
    """Draw a pair from the files that are there; what cannot be read is said in the notes."""
    notes: list[str] = []
    try:
        volumes = Volumes(entry)
    except InputError as error:
        return Pictures([], "", None, [str(error)])
    grid = volumes.grid
    places = cuts(grid.shape, grid.spacing)
    slices = _cut_all(volumes, places, notes)
    largest = _round_up(slices["error"]) if "error" in slices else None
    scaling = SIDE / max(np.multiply(grid.shape, grid.spacing))
    planes = []
    for row, (axis, _, name) in enumerate(places):
        plane = {key: values[row] for key, values in slices.items()}
        i, j = (a for a in range(3) if a != axis)
        width, height = (max(1, round(scaling * grid.shape[a] * grid.spacing[a])) for a in (i, j))
        layers = {
            key: address(picture, QUALITY if key in IMAGES else None)
            for key, picture in _layers(plane, (width, height), largest)
        }
        planes.append(Plane(name, (width, height), grid.sides(i, j), layers))
    first = {key: values[0] for key, values in slices.items()}
    return Pictures(planes, _thumbnail(first, planes[0].size), largest, notes)


def _cut_all(volumes: Volumes, places: Sequence[Place], notes: list[str]) -> Slices:
    """Cut slices of everything that is there; one volume after the other is read, to save memory."""
    found: Slices = {}
    for key in (*IMAGES, "label_fixed", "label_warped", "ddf", "jacobian", "error"):
        try:
            slices = _cut(volumes, key, places)
        except InputError as error:
            notes.append(str(error))
        else:
            found |= {} if slices is None else {key: slices}
    return found


def _cut(volumes: Volumes, key: str, places: Sequence[Place]) -> list[np.ndarray] | None:
    if key == "moving":
        return _moving(volumes, places)
    if key == "ddf":  # the components within each slice, (2, X, Y)
        ddf = volumes.field()
        return None if ddf is None else [np.delete(ddf.take(i, axis + 1), axis, axis=0) for axis, i, _ in places]
    volume = volumes.read(key)
    return None if volume is None else [volume.take(index, axis) for axis, index, _ in places]


def _moving(volumes: Volumes, places: Sequence[Place]) -> list[np.ndarray] | None:
    """Slices of the moving image before the registration, with the alignment alone, where that is known."""
    matrix, image, shape = volumes.to_moving, volumes.moving, volumes.grid.shape
    if matrix is None or image is None:
        return None
    values = image[0].numpy()
    found = []
    for axis, index, _ in places:
        ranges = [np.arange(n) if a != axis else np.array([index]) for a, n in enumerate(shape)]
        points = np.stack(np.meshgrid(*ranges, indexing="ij")).reshape(3, -1)
        there = matrix[:3, :3] @ points + matrix[:3, 3:]
        part = map_coordinates(values, there, order=1, cval=float(values.min())).reshape(*np.delete(shape, axis))
        found.append(scaled(torch.from_numpy(part), volumes.moving_limits))
    return found


def _layers(
    plane: dict[str, np.ndarray], size: tuple[int, int], largest: float | None
) -> Iterator[tuple[str, Image.Image]]:
    """Make the pictures of one slice: values pixel by pixel, outlines and the grid as large as they are shown."""
    for key in IMAGES:
        if key in plane:
            yield key, Image.fromarray(gray(_pixels(plane[key], size)))
    for key, colour in (("label_fixed", GREEN), ("label_warped", RED)):
        if key in plane:
            outline = edges(enlarge(plane[key], size))
            yield key, Image.fromarray(np.dstack([np.where(outline[..., None], colour, 0), 255 * outline]).astype("u1"))
    if "ddf" in plane:
        lines = draw_grid(plane["ddf"], size)[..., 0] / 255
        yield "grid", Image.fromarray((255 * np.round(lines * GRID_STEPS) / GRID_STEPS).astype(np.uint8))
    if "jacobian" in plane:
        determinant = _pixels(plane["jacobian"], size)
        picture = colored(np.round((determinant - 1) * STEPS) / STEPS)
        picture[determinant <= 0] = MAGENTA
        yield "jacobian", Image.fromarray(picture)
    if "error" in plane:
        places = np.linspace(0, 1, len(ERROR_COLOURS))
        part = np.round(_pixels(plane["error"], size) / (largest or 1) * STEPS) / STEPS
        channels = [np.interp(part, places, channel) for channel in ERROR_COLOURS.T]
        yield "error", Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def _pixels(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The values of a slice, one per pixel, or fewer where that is more than a screen shows."""
    width, height = (min(n, 2 * shown) for n, shown in zip(values.shape, size))
    return enlarge(values, (width, height))


def address(picture: Image.Image, quality: int | None = None) -> str:
    """Return a picture as a ``data:`` address of WebP, without loss unless a quality is given."""
    stream = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if quality is None else {"quality": quality}
    picture.save(stream, format="webp", method=4, **options)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _thumbnail(plane: dict[str, np.ndarray], size: tuple[int, int]) -> str:
    """The warped image with the outline of all labels together, small; empty without the image."""
    image = plane.get("warped", plane.get("fixed"))
    if image is None:
        return ""
    width, height = (max(1, round(THUMBNAIL * n / max(size))) for n in size)
    small = (width, height)
    picture = gray(enlarge(image, small))
    for key, colour in (("label_fixed", GREEN), ("label_warped", RED)):
        if key in plane:
            picture[edges(enlarge(plane[key] != 0, small))] = colour
    return address(Image.fromarray(picture), quality=80)


def _round_up(slices: Sequence[np.ndarray]) -> float:
    """The error in mm that the brightest colour stands for: more than nearly all voxels have."""
    high = max(float(np.percentile(part, 99)) for part in slices)
    return next((limit for limit in ROUND if limit >= high), float(math.ceil(high)))
