"""The overview picture of one registered pair."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.utils import convert_to_tensor
from PIL import Image, ImageDraw, ImageFont

from .measures import scale

if TYPE_CHECKING:
    from .registered import RegisteredPair

__all__ = ["GREEN", "MAGENTA", "RED", "colored", "cuts", "draw_grid", "draw_overview", "edges", "enlarge", "gray"]

COLUMNS = ("fixed", "moving", "warped", "difference before", "difference after", "warped grid", "Jacobian determinant")
GRID_LINES = 24
WIDTH, GAP, MARGIN, BAR = 216, 8, 18, 12  # pixels: of a panel, between panels, for text, of the colour bar
FINER = 3  # the grid is drawn in so many pixels for each one, and shrunk
GREEN, RED, MAGENTA = (0, 255, 0), (255, 0, 0), (255, 0, 255)
# from blue through white to red: ColorBrewer's RdBu by Cynthia Brewer
BLUE_TO_RED = np.array(
    [
        *((5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222), (209, 229, 240), (247, 247, 247)),
        *((253, 219, 199), (244, 165, 130), (214, 96, 77), (178, 24, 43), (103, 0, 31)),
    ]
)


def draw_overview(pair: RegisteredPair, path: Path) -> None:
    """Draw fixed, moving, warped, differences, grid and |J| of three slices (2D stack) or three planes (3D).

    If there are labels, their contours are drawn: fixed in green, warped moving in red. In the map of |J|, 1 is white,
    compression blue, expansion red, and folds (|J| <= 0) are magenta.

    Args:
        pair: the registered pair.
        path: the PNG file to write.
    """
    rows = [(plane["name"], _panels(plane)) for plane in _planes(pair)]
    height = MARGIN + sum(len(panels[0]) + GAP for _, panels in rows)
    canvas = np.full((height, MARGIN + len(COLUMNS) * (WIDTH + GAP) + BAR + 2 * MARGIN, 3), 255, np.uint8)
    picture = Image.fromarray(canvas)
    for column, title in enumerate(COLUMNS):
        _write(picture, title, MARGIN + column * (WIDTH + GAP) + WIDTH // 2, MARGIN // 2)
    top = MARGIN
    for name, panels in rows:
        for column, panel in enumerate(panels):
            picture.paste(Image.fromarray(panel), (MARGIN + column * (WIDTH + GAP), top))
        length = len(panels[0])
        side = Image.new("RGB", (length, MARGIN), "white")
        _write(side, name, length // 2, MARGIN // 2)
        picture.paste(side.rotate(90, expand=True), (0, top))
        _draw_bar(picture, top, length)
        top += length + GAP
    picture.save(path, format="png", compress_level=1)


def _planes(pair: RegisteredPair) -> Iterator[dict[str, Any]]:
    """Cut slices of everything that is drawn, in the orientation of the fixed image."""
    ranges = pair.ranges
    images = {"fixed": pair.fixed, "warped": pair.warped, "jacobian": pair.jacobian}
    volumes = {key: _array(image)[0] for key, image in images.items()}
    labels = {"label_fixed": pair.label_fixed, "label_warped": pair.label_warped}
    volumes |= {key: _array(label)[0] for key, label in labels.items() if label is not None}
    ddf = _array(pair.ddf)
    spacing = np.asarray(pair.fixed.pixdim)
    for axis, index, name in cuts(volumes["fixed"].shape, spacing):
        i, j = (a for a in range(3) if a != axis)
        plane: dict[str, Any] = {key: volume.take(index, axis) for key, volume in volumes.items()}
        plane["moving"] = pair.resampled_plane(axis, index).numpy()
        for key in ("fixed", "moving", "warped"):
            limits = ranges["fixed" if key == "fixed" else "moving"]
            plane[key] = scale(torch.from_numpy(plane[key]), limits).numpy()
        plane["ddf"] = np.stack([ddf[i].take(index, axis), ddf[j].take(index, axis)])
        width, height = plane["fixed"].shape * spacing[[i, j]]
        plane["size"] = (WIDTH, max(1, round(WIDTH * height / width)))
        plane["name"] = name
        yield plane


def cuts(shape: tuple[int, ...], spacing: np.ndarray) -> list[tuple[int, int, str]]:
    """Return (axis, index, name) for the middle of each axis, or for three slices of a stack with thick slices."""
    if shape[2] == 1 or spacing[2] > 2 * max(spacing[:2]):
        indices = sorted({round(fraction * (shape[2] - 1)) for fraction in (0.25, 0.5, 0.75)})
        return [(2, index, f"slice {index}") for index in indices]
    return [(axis, shape[axis] // 2, f"axis {'ijk'[axis]} = {shape[axis] // 2}") for axis in (2, 1, 0)]


def _panels(plane: dict[str, Any]) -> list[np.ndarray]:
    """Return the panels of one row, in the order of ``COLUMNS``, each of shape (height, WIDTH, 3), 8 bits."""
    size = plane["size"]
    fixed, moving, warped = (gray(enlarge(plane[key], size)) for key in ("fixed", "moving", "warped"))
    if "label_fixed" in plane:
        outline = edges(enlarge(plane["label_fixed"], size))
        fixed[outline] = warped[outline] = GREEN
    if "label_warped" in plane:
        warped[edges(enlarge(plane["label_warped"], size))] = RED
    before, after = (colored(enlarge(plane["fixed"] - plane[key], size)) for key in ("moving", "warped"))
    determinant = enlarge(plane["jacobian"], size)
    jacobian = colored(determinant - 1)
    jacobian[determinant <= 0] = MAGENTA
    return [fixed, moving, warped, before, after, draw_grid(plane["ddf"], size), jacobian]


def enlarge(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Repeat the pixels of an image (X, Y), so that it has this width and height, with its second axis upwards."""
    x, y = (np.arange(n) * old // n for n, old in zip(size, image.shape))
    return image[np.ix_(x, y[::-1])].T


def gray(values: np.ndarray) -> np.ndarray:
    """Return the colours of values from 0 to 1."""
    return np.repeat((255 * values).round().astype(np.uint8)[..., None], 3, axis=-1)


def colored(values: np.ndarray) -> np.ndarray:
    """Return the colours of values from -1, blue, to 1, red."""
    places = np.linspace(-1, 1, len(BLUE_TO_RED))
    return np.stack([np.interp(values, places, channel) for channel in BLUE_TO_RED.T], axis=-1).round().astype(np.uint8)


def edges(label: np.ndarray) -> np.ndarray:
    """Return which pixels have another label on their right or below."""
    found = np.zeros(label.shape, bool)
    found[:, :-1] |= label[:, :-1] != label[:, 1:]
    found[:-1] |= label[:-1] != label[1:]
    return found


def draw_grid(ddf: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw where the points of a regular grid are sampled in the moving image; ddf in voxels, shape (2, X, Y)."""
    shape = np.array(ddf.shape[1:])
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) + ddf
    pixels = (np.moveaxis(points, 0, -1) + 0.5) / shape * size * FINER
    pixels[..., 1] = size[1] * FINER - pixels[..., 1]
    picture = Image.new("L", (size[0] * FINER, size[1] * FINER), 255)
    draw, step = ImageDraw.Draw(picture), max(1, max(shape) // GRID_LINES)
    for line in (*pixels[::step], *pixels[:, ::step].swapaxes(0, 1)):
        draw.line(line.ravel().tolist(), fill=0, width=2)
    return np.repeat(np.asarray(picture.reduce(FINER))[..., None], 3, axis=-1)


def _draw_bar(picture: Image.Image, top: int, height: int) -> None:
    """Draw the colours of |J| from 0 to 2 beside the last panel."""
    left = MARGIN + len(COLUMNS) * (WIDTH + GAP)
    values = np.linspace(1, -1, height)[:, None].repeat(BAR, axis=1)
    picture.paste(Image.fromarray(colored(values)), (left, top))
    for value in (0, 1, 2):
        place = top + min(max(height * (2 - value) // 2, MARGIN // 2), height - MARGIN // 2)
        _write(picture, str(value), left + BAR + MARGIN // 2, place)


def _write(picture: Image.Image, text: str, x: int, y: int) -> None:
    """Write a text around a place."""
    ImageDraw.Draw(picture).text((x, y), text, fill="black", font=ImageFont.load_default(11), anchor="mm")


def _array(values: Any) -> np.ndarray:
    return convert_to_tensor(values, track_meta=False).numpy()
