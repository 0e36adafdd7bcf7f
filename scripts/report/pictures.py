"""The pictures of one pair: slices of its images and fields, as small files inside of the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.utils import convert_to_tensor
from PIL import Image
from scipy.ndimage import map_coordinates

from ..deformation.formats import read_vectors
from ..deformation.transform_files import read_transform
from ..images.intensities import find_range, tissue_floor
from ..images.loading import as_nifti, read_nifti
from ..results.measures import scale
from ..results.overview import GREEN, MAGENTA, RED, colored, cuts, draw_grid, edges, enlarge, gray
from ..support.errors import InputError
from ..support.files import sha256
from .entries import Entry

__all__ = ["ERROR_COLOURS", "Pictures", "Plane", "draw_pair"]

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
        grid = _grid(entry)
        places = cuts(grid.shape, grid.spacing)
        slices = _cut_all(entry, grid, places, notes)
    except InputError as error:
        return Pictures([], "", None, [str(error)])
    largest = _round_up(slices["error"]) if "error" in slices else None
    scaling = SIDE / max(np.multiply(grid.shape, grid.spacing))
    planes = []
    for row, (axis, _, name) in enumerate(places):
        plane = {key: values[row] for key, values in slices.items()}
        i, j = (a for a in range(3) if a != axis)
        width, height = (max(1, round(scaling * grid.shape[a] * grid.spacing[a])) for a in (i, j))
        layers = {
            key: _address(picture, QUALITY if key in IMAGES else None)
            for key, picture in _layers(plane, (width, height), largest)
        }
        planes.append(Plane(name, (width, height), grid.sides(i, j), layers))
    first = {key: values[0] for key, values in slices.items()}
    return Pictures(planes, _thumbnail(first, planes[0].size), largest, notes)


@dataclass(frozen=True)
class _Grid:
    """The grid of the fixed image."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def sides(self, i: int, j: int) -> tuple[str, str, str, str]:
        """The directions in which the axes i, to the right, and j, upwards, come from and lead to."""
        letters = dict(zip("LRPAIS", "RLAPSI"))
        right, top = (nib.aff2axcodes(self.affine)[axis] or "" for axis in (i, j))
        return letters.get(right, ""), right, letters.get(top, ""), top


def _grid(entry: Entry) -> _Grid:
    for name in ("moving_warped.nii.gz", "jacobian_determinant.nii.gz", "label_warped.nii.gz", "error_mm.nii.gz"):
        path = entry.output(name)
        if path is not None:
            image = as_nifti(path, name.partition(".")[0])
            x, y, z = (*image.shape, 1, 1)[:3]
            return _Grid((x, y, z), image.affine)
    raise InputError("There are no pictures: no result on the grid of the fixed image is there.")


def _cut_all(entry: Entry, grid: _Grid, places: Sequence[Place], notes: list[str]) -> Slices:
    """Cut slices of everything that is there; one volume after the other is read, to save memory."""
    ranges: dict[str, Any] = {}
    readers = {
        "fixed": lambda: _image(_input(entry, "fixed"), grid, places),
        "moving": lambda: _moving(entry, grid, places, ranges),
        "warped": lambda: _image(entry.output("moving_warped.nii.gz"), grid, places, ranges.get("moving")),
        "label_fixed": lambda: _volume(_input(entry, "label_fixed"), grid, places, label=True),
        "label_warped": lambda: _volume(entry.output("label_warped.nii.gz"), grid, places, label=True),
        "ddf": lambda: _field(entry.output("displacement.nii.gz"), grid, places),
        "jacobian": lambda: _volume(entry.output("jacobian_determinant.nii.gz"), grid, places),
        "error": lambda: _volume(entry.output("error_mm.nii.gz"), grid, places),
    }
    found: Slices = {}
    for key, read in readers.items():
        try:
            slices = read()
        except InputError as error:
            notes.append(str(error))
        else:
            found |= {} if slices is None else {key: slices}
    return found


def _input(entry: Entry, key: str) -> Path | None:
    """The file of an input, if it is that which was registered."""
    if key not in entry.inputs:
        return None
    path = Path(entry.inputs[key])
    if not path.exists():
        raise InputError(f"{key}: {path} is not there any more.")
    if sha256(path) != (entry.record.get("sha256") or {}).get(key):
        raise InputError(f"{key}: {path} has changed since the registration.")
    return path


def _read(path: Path, grid: _Grid, label: bool = False) -> torch.Tensor:
    values = convert_to_tensor(read_nifti(path, "report", spatial_dims=2, label=label)[0], track_meta=False)
    if tuple(values.shape) != grid.shape:
        raise InputError(f"{path} has shape {tuple(values.shape)}: expected that of the results, {grid.shape}.")
    return values


def _volume(path: Path | None, grid: _Grid, places: Sequence[Place], label: bool = False) -> list[np.ndarray] | None:
    return None if path is None else _take(_read(path, grid, label).numpy(), places)


def _image(path: Path | None, grid: _Grid, places: Sequence[Place], limits: Any = None) -> list[np.ndarray] | None:
    """Slices of an image, scaled to [0, 1] by these limits, or else as for the network."""
    if path is None:
        return None
    values = _read(path, grid)
    return [_scaled(part, limits or _limits(values)) for part in _take(values.numpy(), places)]


def _limits(values: torch.Tensor) -> Any:
    return find_range(values.clamp(min=tissue_floor(values)).numpy())


def _scaled(values: np.ndarray, limits: Any) -> np.ndarray:
    return scale(torch.from_numpy(values), limits).numpy()


def _take(volume: np.ndarray, places: Sequence[Place]) -> list[np.ndarray]:
    return [volume.take(index, axis) for axis, index, _ in places]


def _field(path: Path | None, grid: _Grid, places: Sequence[Place]) -> list[np.ndarray] | None:
    """The displacement within each slice, in voxels, shape (2, X, Y) each."""
    if path is None:
        return None
    vectors = read_vectors(path, "displacement")[0].numpy()
    if vectors.shape[1:] != grid.shape:
        raise InputError(f"{path} has shape {vectors.shape[1:]}: expected that of the results, {grid.shape}.")
    count = len(vectors)
    to_voxels = np.linalg.inv(grid.affine[:count, :count])
    found = []
    for axis, index, _ in places:
        part = np.zeros((3, *np.delete(grid.shape, axis)))
        part[:count] = np.tensordot(to_voxels, vectors.take(index, axis + 1), axes=1)
        found.append(np.delete(part, axis, axis=0))
    return found


def _moving(entry: Entry, grid: _Grid, places: Sequence[Place], ranges: dict[str, Any]) -> list[np.ndarray] | None:
    """Slices of the moving image before the registration, with the alignment alone, where that is known.

    The limits of its intensities are added to ``ranges``.
    """
    path = _input(entry, "moving")
    if path is None:
        return None
    image = read_nifti(path, "moving", spatial_dims=2)
    values = convert_to_tensor(image[0], track_meta=False)
    ranges["moving"] = _limits(values)
    if not entry.knows_alignment:
        return None
    file = entry.output("alignment.mat")
    alignment = np.eye(4) if file is None else _matrix(file)
    to_moving = np.linalg.inv(image.affine.numpy()) @ alignment @ grid.affine
    found = []
    for axis, index, _ in places:
        ranges_of_axes = [np.arange(n) if a != axis else np.array([index]) for a, n in enumerate(grid.shape)]
        points = np.stack(np.meshgrid(*ranges_of_axes, indexing="ij")).reshape(3, -1)
        there = to_moving[:3, :3] @ points + to_moving[:3, 3:]
        part = map_coordinates(values.numpy(), there, order=1, cval=float(values.min()))
        found.append(_scaled(part.reshape(*np.delete(grid.shape, axis)), ranges["moving"]))
    return found


def _matrix(file: Path) -> np.ndarray:
    """The affine map in ``alignment.mat``, shape (4, 4), between worlds in RAS millimetres."""
    chain = read_transform(file, "alignment")
    corners = torch.cat([torch.zeros(3, 1), torch.eye(3)], dim=1).double()
    there = chain(corners).numpy()
    return np.block([[there[:, 1:] - there[:, :1], there[:, :1]], [np.zeros(3), 1]])


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


def _address(picture: Image.Image, quality: int | None = None) -> str:
    """A picture as a ``data:`` address of WebP, without loss unless a quality is given."""
    stream = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if quality is None else {"quality": quality}
    picture.save(stream, format="webp", method=4, **options)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _thumbnail(plane: dict[str, np.ndarray], size: tuple[int, int]) -> str:
    """The warped image with the outlines of labels, small; empty without the image."""
    image = plane.get("warped", plane.get("fixed"))
    if image is None:
        return ""
    width, height = (max(1, round(THUMBNAIL * n / max(size))) for n in size)
    small = (width, height)
    picture = gray(enlarge(image, small))
    for key, colour in (("label_fixed", GREEN), ("label_warped", RED)):
        if key in plane:
            picture[edges(enlarge(plane[key], small))] = colour
    return _address(Image.fromarray(picture), quality=80)


def _round_up(slices: Sequence[np.ndarray]) -> float:
    """The error in mm that the brightest colour stands for: more than nearly all voxels have."""
    high = max(float(np.percentile(part, 99)) for part in slices)
    return next((limit for limit in ROUND if limit >= high), float(math.ceil(high)))
