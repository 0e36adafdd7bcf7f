"""Pictures of a tracked cine: curves, bull's eye, movie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..deformation.grid import lattice
from .cine import CAVITY, MYOCARDIUM, Cine
from .strain import LEVELS, Strain
from .tracking import TrackedCine
from .video import find_ffmpeg, write_mp4

__all__ = ["draw_bullseye", "draw_curves", "draw_movie"]

RINGS = {"basal": (3, 6), "mid": (2, 6), "apical": (1, 4)}  # outer radius, number of segments
GRID = 6  # voxels between the lines of the warped grid
MARGIN = 20  # voxels around the heart in the movie
ZOOM = 3
GREYS = 120
COLOURS = ((255, 80, 80), (80, 255, 80), (90, 160, 255))  # of the outlines, in the order of the ids
FRAME_MS = 60


def draw_curves(tracked: TrackedCine, strain: Strain | None, path: Path) -> None:
    """Draw volumes, strain and rotation over the cycle; without a label, the motion."""
    from matplotlib.figure import Figure  # slow to import

    groups: dict[str, dict[str, np.ndarray]] = {"volume, ml": tracked.volumes}
    if not tracked.volumes:
        groups = {"motion, voxels": {"99th percentile": tracked.motion}}
    if strain is not None:
        shown = ("global", *LEVELS)
        groups["circumferential strain, %"] = {n: 100 * v for n, v in strain.circumferential.items() if n in shown}
        groups["radial strain, %"] = {n: 100 * v for n, v in strain.radial.items() if n in shown}
        if strain.twist is not None:
            groups["rotation, degrees"] = {**strain.rotation, "twist": strain.twist}
    figure = Figure(figsize=(4 * len(groups), 3.2), dpi=110)
    figure.subplots_adjust(left=0.16 / len(groups), right=1 - 0.04 / len(groups), bottom=0.15, top=0.9)
    step = tracked.cine.frame_seconds
    times = np.arange(len(tracked.ddf)) * (1 if step is None else 1000 * step)
    for axis, (name, curves) in zip(np.atleast_1d(figure.subplots(1, len(groups))), groups.items()):
        for label, values in curves.items():
            axis.plot(times, values, label=label)
        axis.axvline(times[tracked.end_systole], color="gray", linewidth=0.8, linestyle=":")
        axis.set(title=name, xlabel="frame" if step is None else "ms")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, format="png")


def draw_bullseye(strain: Strain, path: Path) -> None:
    """Draw the peak circumferential strain of the AHA segments, or of the levels where there are no segments."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.8), dpi=110)
    axis = figure.add_axes((0.08, 0.02, 0.84, 0.88), projection="polar")  # a layout that is found draws all of it twice
    colours: list[float] = []
    bars = []
    number = 1
    for level, (radius, count) in RINGS.items():
        for index in range(count):
            peak = strain.circumferential.get(str(number), strain.circumferential.get(level))
            value = float("nan") if peak is None else 100 * float(peak.min())
            # segment 1 of a level at the top, the others counterclockwise
            middle = np.deg2rad(90 + index * 360 / count)
            bar = axis.bar(middle, 1, width=2 * np.pi / count, bottom=radius - 1, edgecolor="white", color="lightgray")
            bars.append(bar[0])
            colours.append(value)
            text = f"{number}\n{value:.0f}" if str(number) in strain.circumferential else f"{value:.0f}"
            axis.text(middle, radius - 0.5, text, ha="center", va="center", fontsize=8)
            number += 1
    for patch, value in zip(bars, colours):
        if np.isfinite(value):
            patch.set_facecolor(colormaps["RdYlBu"](np.clip((value + 30) / 30, 0, 1)))
    axis.set_axis_off()
    figure.text(0.5, 0.93, "peak circumferential strain, %", ha="center", fontsize=10)
    figure.savefig(path, format="png")


def draw_movie(tracked: TrackedCine, label: np.ndarray, folder: Path) -> None:
    """Draw the middle slice of the heart over the cycle, with the outlines of the carried labels and the warped grid.

    Args:
        tracked: the tracked cine, with a label.
        label: the labels in all frames, shape (X, Y, Z, T).
        folder: where to write ``movie.gif``, the same as ``movie.mp4`` if there is ffmpeg, and ``overview.png`` of
            end-diastole, on the left, and end-systole.
    """
    from PIL import Image

    frames = _drawn_frames(tracked, label)
    images = [Image.fromarray(np.ascontiguousarray(frame.T[::-1]), mode="P") for frame in frames]
    pair = np.concatenate([frames[tracked.reference], frames[tracked.end_systole]])
    images.append(Image.fromarray(np.ascontiguousarray(pair.T[::-1]), mode="P"))
    for image in images:
        image.putpalette(_palette())
    *images, both = images
    images[0].save(
        folder / "movie.gif", format="GIF", save_all=True, append_images=images[1:], duration=FRAME_MS, loop=0
    )
    both.save(folder / "overview.png", format="PNG")
    if find_ffmpeg():
        write_mp4([np.asarray(image.convert("RGB")) for image in images], FRAME_MS, folder / "movie.mp4")


def _drawn_frames(tracked: TrackedCine, label: np.ndarray) -> list[np.ndarray]:
    """The frames of the movie, as places in the palette, each (X, Y)."""
    z = _middle_slice(tracked.cine)
    places = np.argwhere(label[:, :, z].any(-1))
    low = (places.min(0) - MARGIN).clip(0)
    high = (places.max(0) + MARGIN + 1).clip(max=label.shape[:2])
    window = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    values = np.stack([frame.as_tensor()[0, :, :, z].numpy() for frame in tracked.cine.frames])
    dark, bright = np.percentile(values, (1, 99))
    drawn = []
    for t, grey in enumerate(values):
        scaled = np.clip((grey[window] - dark) / max(bright - dark, 1e-9), 0, 1)
        shown = _enlarged((scaled * (GREYS - 1)).round().astype(np.uint8))
        _draw_grid(shown, tracked.ddf[t, ..., z], low)
        outlined = _enlarged(label[window][..., z, t])
        for place, value in enumerate(sorted(tracked.cine.ids.values())):
            shown[_border(outlined == value)] = 2 * GREYS + place % len(COLOURS)
        drawn.append(shown)
    return drawn


def _palette() -> list[int]:
    """Greys, the same under the lines of the grid, and the colours of the outlines: three bytes each."""
    greys = np.repeat(np.linspace(0, 255, GREYS).astype(int)[:, None], 3, 1)
    return np.concatenate([greys, greys // 2 + np.array([90, 90, 0]), COLOURS]).flatten().tolist()


def _enlarged(values: np.ndarray) -> np.ndarray:
    return values.repeat(ZOOM, 0).repeat(ZOOM, 1)


def _middle_slice(cine: Cine) -> int:
    mask = cine.mask(MYOCARDIUM)
    mask = cine.mask(CAVITY) if mask is None else mask
    assert mask is not None
    slices = np.flatnonzero(mask.any((0, 1)))
    return int(slices[len(slices) // 2])


def _border(mask: np.ndarray) -> np.ndarray:
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(mask, step, axis)
    return mask & ~inner


def _draw_grid(shown: np.ndarray, ddf: torch.Tensor, low: np.ndarray) -> None:
    """Draw the lines of a grid that moves with the heart."""
    points = (lattice(ddf.shape[1:]) + ddf).numpy()
    for axis in (0, 1):
        lines = np.arange(0, ddf.shape[1 + axis], GRID)
        x, y = (np.take(points[c], lines, axis) for c in (0, 1))
        fine = [np.apply_along_axis(_refined, 1 - axis, line) for line in (x, y)]
        places = np.stack([((line - start) * ZOOM + ZOOM / 2).round() for line, start in zip(fine, low)])
        i, j = places.reshape(2, -1).astype(int)
        inside = (i >= 0) & (i < shown.shape[0]) & (j >= 0) & (j < shown.shape[1])
        plain = shown[i[inside], j[inside]]
        shown[i[inside], j[inside]] = plain + GREYS * (plain < GREYS)


def _refined(line: np.ndarray) -> np.ndarray:
    """Points between the voxels of a line, as many as there are pixels."""
    places = np.linspace(0, len(line) - 1, ZOOM * len(line))
    return np.interp(places, np.arange(len(line)), line)
