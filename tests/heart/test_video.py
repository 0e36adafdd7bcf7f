"""The movie as MP4."""

import shutil
import stat

import numpy as np
import pytest

from scripts.heart import video
from scripts.heart.video import find_ffmpeg, write_mp4

FRAMES = [np.full((31, 45, 3), value, np.uint8) for value in (0, 90, 180)]


@pytest.mark.skipif(find_ffmpeg() is None, reason="there is no ffmpeg, and no package imageio-ffmpeg")
def test_the_movie_is_the_same_at_each_run(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_mp4(FRAMES, 60, tmp_path / name)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data[4:8] == b"ftyp"
    assert data == (tmp_path / "b.mp4").read_bytes()


def program(folder, text):
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_ffmpeg_gets_several_cycles_of_even_size(tmp_path, monkeypatch):
    """A program in place of ffmpeg keeps what it is given."""
    program(tmp_path, f'{shutil.which("cat")} > "{tmp_path}/pixels"; echo "$@" > "{tmp_path}/arguments"')
    monkeypatch.setenv("PATH", str(tmp_path))
    write_mp4(FRAMES, 40, tmp_path / "movie.mp4")
    assert (tmp_path / "pixels").stat().st_size == 4 * 3 * 30 * 44 * 3
    arguments = (tmp_path / "arguments").read_text()
    assert "-video_size 44x30 -framerate 25 " in arguments
    assert arguments.strip().endswith("movie.mp4")


def test_without_ffmpeg_nothing_is_written_and_its_failure_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(video, "HAS_IMAGEIO", False)
    write_mp4(FRAMES, 60, tmp_path / "movie.mp4")
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ""
    program(tmp_path, "echo Unknown encoder >&2; exit 3")
    write_mp4(FRAMES, 60, tmp_path / "movie.mp4")
    assert not (tmp_path / "movie.mp4").exists()
    assert "movie.mp4 is not written: ffmpeg ended with 3 (Unknown encoder)." in caplog.text
