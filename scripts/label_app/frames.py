"""Frames of one heart: the label of one frame is carried to another, or to every frame of a cine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.utils import convert_to_tensor
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from ..deformation.grid import lattice
from ..heart import TrackedCine
from ..heart.cine import CAVITY
from ..heart.refinement import sample_slices
from ..heart.results import measures
from ..images.loading import check_same_grid, open_nifti, read_nifti, read_voxels
from ..registration import Registration
from ..support.errors import InputError
from .datastore import check_image, label_of, pair_of, study
from .options import read_options
from .propagation import Propagator, ejection_fraction, names_in, similarity, volumes_ml, write_like

__all__ = ["FramePropagation", "frame_pairs", "has_frames", "partner_of"]

MOST_FRAMES = 500  # each is a registration, and the server does nothing else meanwhile
PEAKS = ("peak_circumferential_percent", "peak_radial_percent")
SAME_GRID = 1e-2  # mm
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
            a NIfTI file on the image's grid, which the caller must remove; volumes, ejection fraction and strain.

        Raises:
            InputError: when an option, the image or the label is not usable.
        """
        options = read_options(self.config(), request)
        image = open_nifti(request["image"], "image")
        if len(image.shape) == 4:
            return self._carry_to_cine(image, options["frame"], request)
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
        drawn = open_nifti(label, "label")
        pair = [open_nifti(moving, "image"), image]
        found: dict[str, Any]
        if on_one_grid(*pair):
            both = nib.Nifti1Image(np.stack([read_voxels(frame, "image") for frame in pair], -1), pair[0].affine)
            tracked = self._track(both, in_memory(drawn, "label"), 0)
            carried, found = tracked.carry_label(1), said_of(tracked)
            found["similarity"] = [1.0, round(similarity_of(tracked, 1), 4)]
        else:  # two images, but no cine
            result = Propagator("cardiac", self.weights())(Path(request["image"]), moving, label)
            carried, found = result.label.numpy(), {"similarity": [1.0, round(result.similarity, 4)]}
            found |= {"verdict": result.verdict, "reasons": list(result.reasons)}
        labels, sizes = [read_voxels(drawn, "label"), carried], [voxel_mm3(drawn), voxel_mm3(image)]
        return write_like(carried, image), {**self._volumes(labels, sizes, [source, name]), **found}

    def _carry_to_cine(
        self, cine: nib.Nifti1Image, frame: int, request: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        count = cine.shape[3]
        if not 0 <= frame < count:
            raise InputError(f"frame is {frame}: expected 0 to {count - 1}, a frame of the image.")
        if count > MOST_FRAMES:
            raise InputError(f"image has {count} frames: expected at most {MOST_FRAMES}.")
        drawn = self._label_of_frame(label_of(self.datastore, request["image_id"], request), frame, count)
        image = in_memory(cine, "image")
        still = nib.Nifti1Image(np.asarray(image.dataobj)[..., frame], image.affine)
        pair = read_nifti(drawn, "label", 2, label=True), read_nifti(still, "image", 2)
        check_same_grid(*pair, "label", f"frame {frame} of the image")
        tracked = self._track(image, drawn, frame)
        labels = list(np.moveaxis(tracked.carry_labels(), -1, 0))
        labels[frame] = np.asarray(drawn.dataobj).reshape(cine.shape[:3])
        volumes = self._volumes(labels, [voxel_mm3(cine)] * count, list(range(count)))
        similarities = [round(similarity_of(tracked, t), 4) for t in range(count)]
        return write_like(np.stack(labels, -1), cine), {**volumes, **said_of(tracked), "similarity": similarities}

    def _track(self, cine: nib.Nifti1Image, label: nib.Nifti1Image, frame: int) -> TrackedCine:
        """Track a cine as ``cine.yaml`` does; a label without the cavity of the left ventricle is only carried."""
        ids = np.unique(np.asarray(label.dataobj))
        cavity = any(self.label_names.get(int(value)) == CAVITY for value in ids)
        weights = self.weights()
        overrides: dict[str, Any] = {} if weights is None else {"weights": weights}
        names = self.label_names if cavity else None
        return Registration.load("cardiac", **overrides).track(cine, label, frame, names)

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


def said_of(tracked: TrackedCine) -> dict[str, Any]:
    """Return the verdict, and the peak strains as ``metrics.json`` names them, if the myocardium is labelled."""
    found = measures(tracked, tracked.strain)
    peaks = {
        name: {segment: round(value, 2) for segment, value in values.items()}
        for name, values in found.items()
        if name in PEAKS
    }
    return {**peaks, "verdict": tracked.verdict.verdict, "reasons": list(tracked.verdict.reasons)}


def similarity_of(tracked: TrackedCine, frame: int) -> float:
    """Return the correlation of a frame, carried to the reference frame, with that one; see :class:`Propagation`."""
    still, moving = (convert_to_tensor(tracked.cine.frames[t], track_meta=False)[0] for t in (tracked.reference, frame))
    places = lattice(still.shape[:2]) + tracked.ddf[frame].movedim(-1, 0)
    warped = sample_slices(moving.movedim(-1, 0)[:, None].contiguous(), places)[:, 0].movedim(0, -1)
    return similarity(still, warped)


def on_one_grid(first: nib.Nifti1Image, second: nib.Nifti1Image) -> bool:
    """Return whether two images have the same voxels in the same places."""
    return first.shape == second.shape and np.allclose(first.affine, second.affine, atol=SAME_GRID)


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
