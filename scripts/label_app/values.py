"""Checks of names, files and JSON that a client sends."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from starlette.datastructures import UploadFile

from ..support.errors import InputError

__all__ = ["check_file", "check_name", "quoted", "read_object"]

NAME = re.compile(r"\w[\w .+()=#-]*")
LONGEST_NAME = 180  # in bytes; file systems allow 255, including prefixes and extensions
LONGEST_PATH = 240  # in bytes, for the file name of an upload as MONAI Label keeps it
LONGEST_JSON = 100_000  # in bytes; a request becomes an argument of a process, which allows 128 KiB
DEEPEST_JSON = 20


def check_name(role: str, name: str) -> None:
    """Raise an :class:`InputError` unless this can be the name of a file, without its extension, or of a folder."""
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise InputError(f"{role} is {quoted(name)}: expected a name, not a path.")
    if not NAME.fullmatch(name):
        raise InputError(f"{role} is {quoted(name)}: expected a name of letters, digits, spaces and . _ - + ( ) = #.")
    if len(name.encode()) > LONGEST_NAME:
        raise InputError(f"{role} is {quoted(name)}: expected a name of at most {LONGEST_NAME} bytes.")


def check_file(role: str, file: UploadFile) -> None:
    """Raise an :class:`InputError` unless an upload is named as a NIfTI file.

    3D Slicer sends the path of the file on its own machine; MONAI Label keeps the end of it.
    """
    path = file.filename or ""
    *folders, name = re.split(r"[/\\]", path)
    if ".." in folders:
        raise InputError(f"{role} is a file named {quoted(path)}: expected a name, not a path.")
    if not name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{role} is a file named {quoted(path)}: expected a NIfTI file, .nii or .nii.gz.")
    check_name(role, name.removesuffix(".gz").removesuffix(".nii"))
    if not path.isprintable() or len(path.rpartition("/")[2].encode()) > LONGEST_PATH:
        raise InputError(f"{role} is a file named {quoted(path)}: expected a shorter name that can be printed.")


def read_object(role: str, text: str | bytes) -> dict[str, Any]:
    """Read a JSON object. Values that strict JSON does not have, such as NaN, are refused.

    Raises:
        InputError: when the text is not such an object, or is too long or too deeply nested.
    """
    if len(text) > LONGEST_JSON:
        raise InputError(f"{role} has {len(text)} bytes: expected at most {LONGEST_JSON}.")
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_read_float)
        _check_json(value, DEEPEST_JSON)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError, too
        raise InputError(f"{role} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f"{role} is {quoted(value)}: expected a JSON object.")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _check_json(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"it is nested more than {DEEPEST_JSON} times")
    if isinstance(value, str) and not "".join(value.split()).isprintable():
        raise ValueError(f"{quoted(value)} has characters that cannot be printed")
    children = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    for child in children:
        _check_json(child, depth - 1)


def quoted(value: object) -> str:
    """Format a value that a client sent for a message: in one line, and shortened."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:70]}... ({len(text)} characters)"
