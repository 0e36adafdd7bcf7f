"""Output folders, files that are written whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["finite", "prepare_folder", "replace_file", "sha256"]


def prepare_folder(folder: Path) -> None:
    """Make an output folder, where it is not there, and make sure that it can be written to.

    Raises:
        InputError: when it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"output_dir: {folder} cannot be written to ({error.strerror}).") from error


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` make a file under a temporary name beside its own, which it gets once it is whole."""
    temporary = path.with_name(f".partial_{path.name}")
    write(temporary)
    os.replace(temporary, path)


def finite(value: Any) -> Any:
    """JSON has no NaN: null says that a measure is not defined."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
