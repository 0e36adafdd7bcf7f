"""Output folders, files that are written completely or not at all, and checksums."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = [
    "finite",
    "is_written",
    "prepare_folder",
    "read_record",
    "remove_debris",
    "replace_file",
    "replace_files",
    "sha256",
    "user_path",
]

PARTIAL = ".partial_"  # prefix of every temporary file and folder of this bundle
OWNER = re.compile(re.escape(PARTIAL) + r"(.+)-(\d+)_[^_-]*")  # of a folder of a process on a machine
ABANDONED = 24 * 3600  # seconds after which the folder of another machine's process is removed


def user_path(value: str | Path, role: str) -> Path:
    """Return a path from the user; ``~`` stands for the home folder. The path need not exist.

    Args:
        value: the path as it was written.
        role: what the file or folder is, for the error message.

    Raises:
        InputError: when no file can have this name, or it cannot be accessed.
    """
    if not isinstance(value, str | Path) or str(value) == "":
        raise InputError(f"{role} is {value!r}: expected the name of a file or a folder.")
    try:
        path = Path(value).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except RuntimeError as error:
        raise InputError(f"{role}: {value} begins with the home folder of a user who does not exist.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{role}: {str(value)!r} cannot be the name of a file or a folder ({reason}).") from error
    return path


def prepare_folder(folder: Path) -> None:
    """Make an output folder, if it does not exist, and check that it can be written to.

    Raises:
        InputError: when it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder, prefix=PARTIAL).close()
    except OSError as error:
        raise InputError(f"output_dir: {folder} cannot be written to ({error.strerror}).") from error


@contextmanager
def replace_files(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Write several files, or none of them: yield a temporary folder, whose files move to ``folder`` at the end.

    Old files with these names that are not written again are removed. The last one of several names is removed first
    and moved last: if it exists, all files exist. After an error, nothing has changed; a process that was killed may
    leave the temporary folder, see :func:`remove_debris`.

    Args:
        folder: the folder for the files; it is made if it does not exist.
        names: names of all files that may be written.

    Raises:
        InputError: when the files cannot be written, for example on a full disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prefix = f"{PARTIAL}{socket.gethostname()}-{os.getpid()}_"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder, ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
            _move(Path(temporary), folder, names)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror or error}).") from error


def _move(source: Path, folder: Path, names: Sequence[str]) -> None:
    """Move the files of :func:`replace_files` so that they are complete on the disk whenever the machine stops."""
    written = [name for name in names if (source / name).exists()]
    for path in (*(source / name for name in written), source):
        _flush(path)
    if len(names) > 1:
        (folder / names[-1]).unlink(missing_ok=True)
    for name in names:
        if name in written:
            os.replace(source / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    _flush(folder)


def _flush(path: Path) -> None:
    """Make the system write a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_debris(folder: Path) -> bool:
    """Remove the temporary files of a killed process from a folder, before this process writes to it.

    What another process is writing stays.

    Returns:
        whether there were any.
    """
    debris = [path for path in _partial(folder) if not _is_written(path)]
    for path in debris:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return bool(debris)


def is_written(folder: Path) -> bool:
    """Return whether another process is writing files of :func:`replace_files` to a folder."""
    return any(_is_written(path) for path in _partial(folder))


def _partial(folder: Path) -> list[Path]:
    return list(folder.glob(f"{PARTIAL}*")) if folder.is_dir() else []


def _is_written(path: Path) -> bool:
    """Return whether another process lives that made a temporary folder; on another machine, by its age."""
    owner = OWNER.fullmatch(path.name)
    if not owner:
        return False
    machine, process = owner[1], int(owner[2])
    if machine != socket.gethostname():
        try:
            return time.time() - path.stat().st_mtime < ABANDONED
        except OSError:
            return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return process != os.getpid()


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON file that this bundle wrote about its results; empty if it does not exist, or is not from here."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and "gradirn" in (record.get("versions") or {}) else {}


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` make a file in a temporary folder, and move it to ``path`` once it is complete."""
    with replace_files(path.parent, [path.name]) as temporary:
        write(temporary / path.name)


def finite(value: Any) -> Any:
    """Replace NaN and infinite values, which JSON does not have, by None, for measures that are not defined."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(path: Path) -> str:
    """Return the checksum of a file, or of the names and checksums of all files of a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listed = "".join(f"{sha256(file)} {file.relative_to(path)}\n" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
