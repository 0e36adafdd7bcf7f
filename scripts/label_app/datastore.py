"""The studies of the server: a folder of NIfTI images with their label maps."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from ..support.errors import InputError
from .values import check_name, quoted

__all__ = ["Studies", "check_image", "label_of", "pair_of", "study"]


class Studies(LocalDatastore):
    """A folder of images, the only folder that a request can write to.

    MONAI Label follows links when it writes and removes files. Here, a link in the folder can be read, but does not
    change. MONAI Label watches the folder in a thread, which takes turns with requests, because each would undo the
    changes of the other.
    """

    def __init__(self, folder: str, auto_reload: bool) -> None:
        self._turn = threading.RLock()
        super().__init__(folder, extensions=["*.nii.gz", "*.nii"], auto_reload=auto_reload)

    def refresh(self) -> None:
        with self._turn:
            super().refresh()

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store an image, see :class:`LocalDatastore`.

        Raises:
            InputError: when the id is not a plain name, the file is not named as a NIfTI file, or a link has its name.
        """
        with self._turn, _removed_on_error(Path(image_filename)):
            _check_new("image", image_id, Path(image_filename))
            _check_no_link(Path(self._datastore.image_path()), image_id)
            return super().add_image(image_id, image_filename, image_info)

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its label maps, see :class:`LocalDatastore`.

        Raises:
            InputError: when one of the files is a link.
        """
        with self._turn:
            _check_no_link(Path(self._datastore.image_path()), image_id)
            super().remove_image(image_id)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a label map, see :class:`LocalDatastore`.

        Raises:
            InputError: when the tag is not a plain name, the file is not named as a NIfTI file, or a link has its name.
        """
        with self._turn, _removed_on_error(Path(label_filename)):
            _check_new("tag", label_tag, Path(label_filename))
            _check_no_link(Path(self._datastore.label_path(label_tag)), image_id)
            return super().save_label(image_id, label_filename, label_tag, label_info)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label map, see :class:`LocalDatastore`.

        Raises:
            InputError: when the file is a link.
        """
        with self._turn:
            _check_no_link(Path(self._datastore.label_path(label_tag)), label_id)
            super().remove_label(label_id, label_tag)

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Make a zip archive of the images that have labels. It replaces the last one, which MONAI Label would keep.

        Raises:
            InputError: when no image has a label.
        """
        if not self.get_labeled_images():
            raise InputError("dataset: no image has a final label yet.")
        archive = Path(super().get_dataset_archive(limit_cases))
        return str(archive.replace(archive.with_name("dataset.zip")))


@contextmanager
def _removed_on_error(file: Path) -> Iterator[None]:
    """MONAI Label removes an upload after a success only."""
    try:
        yield
    except Exception:
        file.unlink(missing_ok=True)
        raise


def _check_new(role: str, name: str, file: Path) -> None:
    check_name(role, name)
    if not file.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{role}: {file.name} is not named as a NIfTI file: expected .nii or .nii.gz.")


def _check_no_link(folder: Path, name: str) -> None:
    for file in (folder / f"{name}{extension}" for extension in (".nii", ".nii.gz")):
        if file.is_symlink():
            raise InputError(f"{file.name} is a link in the studies: the server changes no file elsewhere.")


def check_image(datastore: Datastore, image: object) -> None:
    """Raise an :class:`InputError` unless an image is in the datastore."""
    images = datastore.list_images()
    if image not in images:
        known = ", ".join(sorted(images)[:5])
        raise InputError(
            f"image: there is no {quoted(image)} in the datastore: expected an id like {known or 'none yet'}."
        )


def label_of(datastore: Datastore, image: str, request: Mapping[str, Any]) -> Path:
    """Return the label map that was uploaded with a request, or that of an image in the datastore.

    Raises:
        InputError: when there is none.
    """
    if request.get("label"):
        return Path(request["label"])
    stored = stored_label(datastore, image)
    if stored is None:
        raise InputError(f"label: '{image}' has none in the datastore: expected one there, or one with the request.")
    return stored


def stored_label(datastore: Datastore, image: str) -> Path | None:
    """Return the final label map of an image in the datastore, or else the original one, or None."""
    paths = (datastore.get_label_uri(image, tag) for tag in (DefaultLabelTag.FINAL, DefaultLabelTag.ORIGINAL))
    return next((Path(path) for path in paths if path), None)


def study(datastore: Datastore, image: str) -> tuple[Path, Path | None]:
    """Return the files of an image in the datastore and of its label map, if it has one."""
    return Path(datastore.get_image_uri(image)), stored_label(datastore, image)


def pair_of(name: str, fixed: tuple[Path, Path | None], moving: tuple[Path, Path | None]) -> dict[str, str]:
    """Make an entry of a datalist from two images with their label maps."""
    files = {"fixed": fixed[0], "moving": moving[0], "label_fixed": fixed[1], "label_moving": moving[1]}
    return {"name": name, **{key: str(path) for key, path in files.items() if path is not None}}
