"""Atlases: images whose labels are carried to the image that is annotated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from ..cohorts import find_subjects
from ..cohorts.tasks import task_of
from ..images.loading import open_nifti, read_nifti
from ..support.errors import InputError
from .datastore import pair_of, study
from .frames import has_frames
from .options import listed, read_options
from .propagation import Propagation, Propagator, fuse, names_in, write_like
from .values import quoted

__all__ = ["AtlasPropagation", "AtlasSet", "atlas_pairs", "read_atlases"]


@dataclass(frozen=True)
class AtlasSet:
    """Atlases of one anatomy.

    Attributes:
        name: name of their folder.
        task: name of the task whose network registers them.
        files: image and label map of each atlas, by its name.
        label_names: name of each id in the label maps.
    """

    name: str
    task: str
    files: Mapping[str, tuple[Path, Path]]
    label_names: Mapping[int, str]


def read_atlases(folder: Path) -> AtlasSet:
    """Read a data set in a known layout: each labelled subject is an atlas, with its fixed image if it has two frames.

    Raises:
        InputError: when the folder is not a data set, or none of its subjects has a label.
    """
    cohort = find_subjects(folder)
    key = cohort.layout.fixed
    files = {
        subject.name: (Path(subject.images[key]).resolve(), Path(subject.labels[key]).resolve())
        for subject in cohort.subjects
        if key in subject.labels
    }
    if not files:
        raise InputError(f"atlases: no subject in {folder} has a label map: expected {cohort.layout.expected}.")
    ids = {int(value) for _, label in files.values() for value in read_nifti(label, "atlas", label=True).unique()}
    names = {value: cohort.layout.label_names.get(value, f"label {value}") for value in sorted(ids - {0})}
    return AtlasSet(folder.resolve().name, task_of(cohort.layout.name).name, files, names)


class AtlasPropagation(InferTask):
    """Registers atlases to an image and fuses their labels.

    Options of a request: ``atlas``, one name or several, separated by commas, by default all; ``affine``, an affine
    registration before the network; ``initial_transform``, a map from the image to the atlas in its place, the 16
    numbers of a 4x4 matrix in RAS millimetres; ``lesion``, the tag of a label map of the image in the datastore, whose
    marked voxels do not drive the registration; ``fusion``, ``weighted`` by the squared local correlation of image and
    atlas, or ``majority``; ``output_image``, the ``label`` map or its ``confidence``, the share of the winning votes in
    each voxel.

    Args:
        atlases: the atlases to choose from.
        weights: function that returns the current weights, or None for the shipped ones.
        datastore: the images and labels.
    """

    def __init__(self, atlases: AtlasSet, weights: Callable[[], Path | None], datastore: Datastore) -> None:
        names = ", ".join(atlases.files)
        super().__init__(
            type=InferType.SEGMENTATION,
            labels={name: value for value, name in atlases.label_names.items()},
            dimension=3,
            description=f"Carries the labels of the {atlases.name} atlases ({names}) to the image by registration",
            config={
                "atlas": "",
                "affine": False,
                "initial_transform": "",
                "lesion": "",
                "fusion": ["weighted", "majority"],
                "output_image": ["label", "confidence"],
            },
        )
        self.atlases = atlases
        self.weights = weights
        self.datastore = datastore

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Carry the labels to ``request["image"]``, a path.

        Returns:
            a NIfTI file on the image's grid, which the caller must remove, and information on the result.

        Raises:
            InputError: when an option, an atlas or the image is not usable.
        """
        options = read_options(self.config(), request)
        image = Path(request["image"])
        guidance: dict[str, Any] = {}
        if options["lesion"]:
            guidance["mask_fixed"] = self._outside(options["lesion"], str(request.get("image_id", "")))
        if options["initial_transform"]:
            guidance["initial_transform"] = _matrix(options["initial_transform"])
        found = self.propagate(image, options["atlas"], options["affine"], **guidance)
        votes = [p.weight if options["fusion"] == "weighted" else torch.ones_like(p.weight) for p in found.values()]
        label, confidence = fuse([p.label for p in found.values()], votes)
        values = confidence if options["output_image"] == "confidence" else label
        present = names_in(label.numpy(), self.atlases.label_names)
        parameters = {
            "label_names": present,
            "atlases": {
                name: {"similarity": round(p.similarity, 4), "verdict": p.verdict, "reasons": list(p.reasons)}
                for name, p in found.items()
            },
            "confidence": {name: round(confidence[label == value].mean().item(), 4) for name, value in present.items()},
        }
        return write_like(values.numpy(), open_nifti(image, "image")), parameters

    def _outside(self, tag: str, image: str) -> MetaTensor:
        """Return where a label map of an image, in the datastore, marks nothing."""
        stored = image in self.datastore.list_images() and self.datastore.get_label_uri(image, tag)
        if not stored:
            raise InputError(
                f"lesion: there is no label map with the tag {quoted(tag)} of this image in the datastore."
            )
        label = read_nifti(stored, "lesion", label=True)
        return MetaTensor((convert_to_tensor(label, track_meta=False) == 0).float(), meta=label.meta)

    def propagate(self, image: Path, names: str = "", affine: bool = False, **guidance: Any) -> dict[str, Propagation]:
        """Carry the named atlases, or all, to an image; for the guidance, see :class:`Propagator`.

        Raises:
            InputError: when an atlas does not exist.
        """
        chosen = listed(names) or list(self.atlases.files)
        for name in chosen:
            if name not in self.atlases.files:
                raise InputError(f"atlas: there is no '{name}': expected {', '.join(self.atlases.files)}.")
        propagator = Propagator(self.atlases.task, self.weights(), affine)
        return {name: propagator(image, *self.atlases.files[name], **guidance) for name in chosen}

    def similarity(self, image: Path) -> float:
        """Return the similarity of an image and the first atlas after registration."""
        moving, _ = next(iter(self.atlases.files.values()))
        return Propagator(self.atlases.task, self.weights()).similarity(image, moving)


def _matrix(text: str) -> np.ndarray:
    """Read the 16 numbers of a 4x4 matrix, row by row."""
    words = text.replace(",", " ").split()
    try:
        return np.array([float(word) for word in words]).reshape(4, 4)
    except ValueError as error:
        raise InputError(
            f"initial_transform is {quoted(text)}: expected the 16 numbers of a 4x4 matrix, row by row."
        ) from error


def atlas_pairs(atlases: AtlasSet, datastore: Datastore, images: Sequence[str], folder: Path) -> list[dict[str, str]]:
    """Pair each image, as the fixed one, with every atlas and every other image; images with frames are left out."""
    studies = {image: study(datastore, image) for image in images if not has_frames(datastore, image)}
    return [
        pair_of(f"{moving}_to_{fixed}", files, others)
        for fixed, files in studies.items()
        for moving, others in {**atlases.files, **studies}.items()
        if moving != fixed
    ]
