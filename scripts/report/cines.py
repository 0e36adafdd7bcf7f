"""The pictures of one cine: what lies in its folder, as small files inside of the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence, UnidentifiedImageError

from .entries import Entry
from .pictures import THUMBNAIL, address

__all__ = ["CinePictures", "draw_cine", "draw_cines"]

STILL = {"overview": "overview.png", "curves": "curves.png", "bullseye": "bullseye.png"}
MOVIE = "movie.gif"
MOST_BYTES = 40 * 2**20  # of all movies in a page
QUALITY = 60  # of the movie, in WebP, which takes a quarter of the bytes of the GIF


@dataclass(frozen=True)
class CinePictures:
    """The pictures of a cine.

    Attributes:
        layers: ``data:`` addresses of ``movie``, ``overview``, ``curves`` and ``bullseye``, those that there are.
        thumbnail: a small picture; empty without a movie.
        notes: what is not shown, and why.
    """

    layers: dict[str, str]
    thumbnail: str
    notes: list[str]


def draw_cines(entries: Sequence[Entry]) -> dict[str, CinePictures]:
    """Draw cines by their names; the movies stop at :data:`MOST_BYTES`."""
    drawn: dict[str, CinePictures] = {}
    used = 0
    for entry in entries:
        drawn[entry.name] = draw_cine(entry, used < MOST_BYTES)
        used += len(drawn[entry.name].layers.get("movie", ""))
    return drawn


def draw_cine(entry: Entry, movie: bool = True) -> CinePictures:
    """Take the pictures of a cine from the files that are there; what cannot be read is said in the notes.

    Args:
        entry: the cine.
        movie: whether the page has room for its movie.
    """
    layers: dict[str, str] = {}
    notes: list[str] = []
    thumbnail = ""
    frames = _read(entry.folder / MOVIE, notes)
    if frames:
        small = frames[0].convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        thumbnail = address(small, 80)
        if movie:
            layers["movie"] = _animation(frames)
        else:
            notes.append("The movie: the page would become too large, it lies in the folder of the results.")
    for name, file in STILL.items():
        picture = _read(entry.folder / file, notes)
        if picture:
            layers[name] = address(picture[0].convert("RGB"))
    return CinePictures(layers, thumbnail, notes)


def _read(path: Path, notes: list[str]) -> list[Image.Image]:
    """The frames of a picture; none if it was not written or cannot be read, which is said."""
    if not path.is_file():
        return []
    try:
        with Image.open(path) as opened:
            duration = opened.info.get("duration", 0)
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]
    except (OSError, UnidentifiedImageError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({error}).")
        return []
    for frame in frames:
        frame.info["duration"] = duration
    return frames


def _animation(frames: list[Image.Image]) -> str:
    """A movie without an end as a ``data:`` address of WebP."""
    stream = io.BytesIO()
    duration = int(frames[0].info["duration"]) or 60
    first, *others = frames
    options = {"save_all": True, "append_images": others, "duration": duration, "loop": 0}
    first.save(stream, "webp", quality=QUALITY, method=2, **options)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
