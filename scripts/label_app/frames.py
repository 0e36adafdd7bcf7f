"""Frames of one heart: the label of one frame is carried to another, or to every frame of a cine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from ..images.loading import check_same_grid, open_nifti, read_nifti, read_voxels
from ..support.errors import InputError
from .datastore import check_image, label_of, pair_of, study
from .options import read_options
from .propagation import Propagator, ejection_fraction, names_in, volumes_ml, write_like

__all__ = ["FramePropagation", "frame_pairs", "has_frames", "partner_of"]

MOST_FRAMES = 500  # each is a registration, and the server does nothing else meanwhile
NOT_A_CAVITY = "myo"  # start of the name of a label that has no ejection fraction


class FramePropagation(InferTask):
    """Carries the label of one frame to the image of a request: to another frame, or to every frame of a cine.

    The label comes with the request, or from the datastore. It belongs to ``source``, an id of the datastore, by
    default the other frame of the image (``patient001_ED`` for ``patient001_ES``); for a cine, (X, Y, Z, T), it belongs
    to the frame number ``frame``.

    Args:
        datastore: the images and labels.
        label_names: name of each id in the label maps.
        weights: function that returns the current weights, or None for the shipped ones.
    """

    def __init__(
        self, datastore: Datastore, label_names: Mapping[int, str], weights: Callable[[], Path | None]
    ) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels={name: value for value, name in label_names.items()},
            dimension=3,
            description="Carries the label of one frame of a heart to another frame or to every frame of a cine",
            config={"source": "", "frame": 0},
        )
        self.datastore = datastore
        self.label_names = label_names
        self.weights = weights

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Carry the label to ``request["image"]``, a path; ``request["image_id"]`` is its id, if it has one.

        Returns:
            a NIfTI file on the image's grid, which the caller must remove, and the volumes.

        Raises:
            InputError: when an option, the image or the label is not usable.
        """
        options = read_options(self.config(), request)
        image = open_nifti(request["image"], "image")
        with tempfile.TemporaryDirectory() as folder:
            if len(image.shape) == 4:
                return self._carry_to_cine(image, options["frame"], request, Path(folder))
            return self._carry_to_frame(image, options["source"], request)

    def similarity(self, image_id: str) -> float | None:
        """Return the similarity of an image and its other frame after registration, or None without another frame.

        For a cine, these are the first and the middle frame.
        """
        path = Path(self.datastore.get_image_uri(image_id))
        image = open_nifti(path, "image")
        register = Propagator("cardiac", self.weights())
        if len(image.shape) == 4:
            with tempfile.TemporaryDirectory() as folder:
                frames = split(image, Path(folder))
                return register.similarity(frames[0], frames[len(frames) // 2])
        partner = partner_of(image_id, self.datastore.list_images())
        return register.similarity(path, Path(self.datastore.get_image_uri(partner))) if partner else None

    def _carry_to_frame(
        self, image: nib.Nifti1Image, source: str, request: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        name = request["image_id"]
        source = source or partner_of(name, self.datastore.list_images())
        if not source:
            raise InputError(f"source: '{name}' has no other frame, ED or ES: expected the id of the label's image.")
        check_image(self.datastore, source)
        label = label_of(self.datastore, source, request)
        moving = Path(self.datastore.get_image_uri(source))
        found = Propagator("cardiac", self.weights())(Path(request["image"]), moving, label)
        drawn = open_nifti(label, "label")
        labels = [read_voxels(drawn, "label"), found.label.numpy()]
        sizes = [voxel_mm3(drawn), voxel_mm3(image)]
        parameters = {**self._volumes(labels, sizes, [source, name]), "similarity": [1.0, round(found.similarity, 4)]}
        return write_like(labels[1], image), parameters

    def _carry_to_cine(
        self, cine: nib.Nifti1Image, frame: int, request: Mapping[str, Any], folder: Path
    ) -> tuple[str, dict[str, Any]]:
        count = cine.shape[3]
        if not 0 <= frame < count:
            raise InputError(f"frame is {frame}: expected 0 to {count - 1}, a frame of the image.")
        if count > MOST_FRAMES:
            raise InputError(f"image has {count} frames: expected at most {MOST_FRAMES}.")
        frames = split(cine, folder)
        label = folder / "label.nii.gz"
        nib.save(self._label_of_frame(label_of(self.datastore, request["image_id"], request), frame, count), label)
        drawn = read_nifti(label, "label", 2, label=True)
        check_same_grid(drawn, read_nifti(frames[frame], "image", 2), "label", f"frame {frame} of the image")
        register = Propagator("cardiac", self.weights())
        labels, similarities = [], []
        for index, path in enumerate(frames):
            if index == frame:
                labels.append(drawn[0].numpy().astype(int))
                similarities.append(1.0)
                continue
            found = register(path, frames[frame], label)
            labels.append(found.label.numpy())
            similarities.append(round(found.similarity, 4))
        volumes = self._volumes(labels, [voxel_mm3(cine)] * count, list(range(count)))
        return write_like(np.stack(labels, -1), cine), {**volumes, "similarity": similarities}

    @staticmethod
    def _label_of_frame(path: Path, frame: int, count: int) -> nib.Nifti1Image:
        """Open a label map of one frame, or take this frame from a label map of all frames."""
        label = in_memory(open_nifti(path, "label"), "label")
        if len(label.shape) == 4 and label.shape[3] == count:
            return nib.four_to_three(label)[frame]
        return label

    def _volumes(self, labels: Sequence[np.ndarray], sizes: Sequence[float], frames: Sequence[Any]) -> dict[str, Any]:
        names = names_in(np.concatenate([np.unique(label) for label in labels]), self.label_names)
        found = [volumes_ml(label, size, names) for label, size in zip(labels, sizes)]
        volumes = {name: [each[name] for each in found] for name in names}
        cavities = {name: values for name, values in volumes.items() if not name.lower().startswith(NOT_A_CAVITY)}
        return {
            "label_names": names,
            "frames": list(frames),
            "volumes_ml": volumes,
            "ejection_fraction_percent": {name: ejection_fraction(values) for name, values in cavities.items()},
        }


def partner_of(image: str, images: Sequence[str]) -> str:
    """Return the id of the other frame of a heart: ED in place of ES, or ES in place of ED; "" if there is none."""
    swapped = re.sub(r"(?<![A-Za-z])(ED|ES)(?![A-Za-z])", lambda found: "ES" if found[0] == "ED" else "ED", image)
    return swapped if swapped != image and swapped in images else ""


def frame_pairs(datastore: Datastore, images: Sequence[str], folder: Path) -> list[dict[str, str]]:
    """Pair the two frames of each heart among these images, ED fixed, with their labels, if there are any.

    For a cine, the first frame is paired with each other one; they are written to files below ``folder``.
    """
    pairs = {}
    for image in images:
        path, partner = Path(datastore.get_image_uri(image)), partner_of(image, datastore.list_images())
        if partner:
            fixed, moving = sorted((image, partner))
            pairs[fixed] = pair_of(f"{moving}_to_{fixed}", study(datastore, fixed), study(datastore, moving))
        elif len(open_nifti(path, "image").shape) == 4:
            first, *others = split(open_nifti(path, "image"), folder / image)
            for other in others:
                name = f"{image}/{other.name.partition('.')[0]}"
                pairs[name] = pair_of(name, (first, None), (other, None))
    return list(pairs.values())


def has_frames(datastore: Datastore, image: str) -> bool:
    """Return whether an image of the datastore is a cine, or has another frame there."""
    cine = len(open_nifti(datastore.get_image_uri(image), "image").shape) == 4
    return cine or bool(partner_of(image, datastore.list_images()))


def split(cine: nib.Nifti1Image, folder: Path) -> list[Path]:
    """Write each frame of a cine to a separate file in a folder, which is made if necessary."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = [folder / f"frame_{index:03d}.nii.gz" for index in range(cine.shape[3])]
    for path, image in zip(frames, nib.four_to_three(in_memory(cine, "image"))):
        nib.save(image, path)
    return frames


def in_memory(image: nib.Nifti1Image, role: str) -> nib.Nifti1Image:
    """An image whose voxels are read, so that a damaged file is noticed here."""
    return type(image)(read_voxels(image, role), image.affine, image.header)


def voxel_mm3(image: nib.Nifti1Image) -> float:
    return float(abs(np.linalg.det(image.affine[:3, :3])))
