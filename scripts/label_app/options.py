"""What a request may ask for: ids of the datastore, uploads and options, never a path of the server."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from ..support.command_line import flag
from ..support.errors import InputError

__all__ = ["Studies", "check_image", "is_upload", "label_of", "listed", "pair_of", "read_options", "study"]


def read_options(config: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task as a request sets them.

    Args:
        config: each option's default, which gives its type; a list is a choice, its first value the default.
        request: a viewer sends text for numbers, and nothing or an empty text for the default.

    Raises:
        InputError: when a value is not of that type, or not among the choices.
    """
    return {name: _read(name, default, request.get(name)) for name, default in config.items()}


def _read(name: str, default: Any, value: Any) -> Any:
    if value is None or value in ("", default):
        return default[0] if isinstance(default, list) else default
    if isinstance(default, list):
        if value not in default:
            raise InputError(f"{name} is '{value}': expected one of {', '.join(default)}.")
        return value
    if isinstance(default, bool):
        return flag(name, value)
    try:
        return type(default)(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is '{value}': expected a value like {default}.") from error


def listed(text: str) -> list[str]:
    """The names in a text, with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


class Studies(LocalDatastore):
    """A folder of images, in which a request names no file outside of it."""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """As MONAI Label does.

        Raises:
            InputError: when the id is a path.
        """
        _check_name("image", image_id)
        return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """As MONAI Label does.

        Raises:
            InputError: when the tag is a path.
        """
        _check_name("tag", label_tag)
        return super().save_label(image_id, label_filename, label_tag, label_info)


def _check_name(role: str, name: str) -> None:
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise InputError(f"{role} is '{name}': expected a name, not a path.")


def check_image(datastore: Datastore, image: object) -> None:
    """Raise an :class:`InputError` unless an image is in the datastore."""
    if image not in datastore.list_images():
        known = ", ".join(sorted(datastore.list_images())[:5])
        raise InputError(f"image: there is no '{image}' in the datastore: expected an id like {known or 'none yet'}.")


def label_of(datastore: Datastore, image: str, request: Mapping[str, Any]) -> Path:
    """The label map that came with a request, or that of an image in the datastore.

    Raises:
        InputError: when there is none, or the request names a file of the server.
    """
    uploaded = request.get("label")
    if uploaded:
        if not is_upload(str(uploaded)):
            raise InputError("label: expected a file that is uploaded with the request, not a name.")
        return Path(uploaded)
    stored = stored_label(datastore, image)
    if stored is None:
        raise InputError(f"label: '{image}' has none in the datastore: expected one there, or one with the request.")
    return stored


def stored_label(datastore: Datastore, image: str) -> Path | None:
    """The final or else the original label map of an image in the datastore."""
    paths = (datastore.get_label_uri(image, tag) for tag in (DefaultLabelTag.FINAL, DefaultLabelTag.ORIGINAL))
    return next((Path(path) for path in paths if path), None)


def study(datastore: Datastore, image: str) -> tuple[Path, Path | None]:
    """The files of an image in the datastore and of its label map, where it has one."""
    return Path(datastore.get_image_uri(image)), stored_label(datastore, image)


def pair_of(name: str, fixed: tuple[Path, Path | None], moving: tuple[Path, Path | None]) -> dict[str, str]:
    """An entry of a datalist, of two images with their label maps."""
    files = {"fixed": fixed[0], "moving": moving[0], "label_fixed": fixed[1], "label_moving": moving[1]}
    return {"name": name, **{key: str(path) for key, path in files.items() if path is not None}}


def is_upload(name: str) -> bool:
    """Whether the server wrote this file for a request: under a name that nobody can guess, in folders for that."""
    file = Path(name).resolve()
    sessions = Path(settings.MONAI_LABEL_SESSION_PATH or Path.home() / ".cache" / "monailabel" / "sessions").resolve()
    temporary = file.parent == Path(tempfile.gettempdir()).resolve() and file.name.startswith("tmp")
    return file.is_file() and (temporary or file.is_relative_to(sessions))
