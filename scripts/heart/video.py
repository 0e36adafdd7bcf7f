"""Writes a movie as MP4 by ffmpeg, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.utils import optional_import

from ..support.notices import warn

__all__ = ["find_ffmpeg", "write_mp4"]

imageio_ffmpeg, HAS_IMAGEIO = optional_import("imageio_ffmpeg")

CYCLES = 4  # of the heart, since not every player repeats a movie


def find_ffmpeg() -> str | None:
    """Return the program: that of the system, or that of the package imageio-ffmpeg; None if there is neither."""
    found = shutil.which("ffmpeg")
    if found is None and HAS_IMAGEIO:
        try:
            found = str(imageio_ffmpeg.get_ffmpeg_exe())
        except RuntimeError:  # the package without its program
            return None
    return found


def write_mp4(frames: Sequence[np.ndarray], frame_ms: int, path: Path) -> None:
    """Write a movie of several cycles; nothing without ffmpeg, and a warning where it fails.

    Args:
        frames: of one cycle, uint8 RGB, each (height, width, 3).
        frame_ms: how long each is shown.
        path: the file.
    """
    program = find_ffmpeg()
    if program is None:
        return
    height, width = (n // 2 * 2 for n in frames[0].shape[:2])  # the codec takes even sizes only
    pixels = b"".join(np.ascontiguousarray(frame[:height, :width]).tobytes() for frame in frames)
    source = f"-f rawvideo -pix_fmt rgb24 -video_size {width}x{height} -framerate {1000 / frame_ms:.6g} -i -"
    target = "-pix_fmt yuv420p -movflags +faststart -fflags +bitexact -flags +bitexact -threads 1 -f mp4"
    command = [program, "-loglevel", "error", "-y", *source.split(), *target.split(), str(path)]
    result = subprocess.run(command, input=CYCLES * pixels, capture_output=True, check=False)
    if result.returncode != 0:
        path.unlink(missing_ok=True)
        reason = result.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        warn(f"{path.name} is not written: ffmpeg ended with {result.returncode} ({reason[-1]}).")
