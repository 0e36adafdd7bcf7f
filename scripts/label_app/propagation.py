"""Carries labels from one image to another by the registration of ``inference.yaml``. Independent of MONAI Label."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.utils import convert_to_tensor

from ..deformation.formats import image_like
from ..deformation.grid import as_volume, by_image
from ..networks.similarity import local_correlation
from ..registration import Registration
from ..results.measures import pearson, rescale

__all__ = [
    "Propagation",
    "Propagator",
    "ejection_fraction",
    "fuse",
    "names_in",
    "similarity",
    "volumes_ml",
    "write_like",
]

LEAST_WEIGHT = 1e-3  # so that the majority decides where the images have no contrast


@dataclass(frozen=True)
class Propagation:
    """A moving image and label on the grid of the fixed image.

    Attributes:
        fixed: the fixed image as it was read, shape (X, Y, Z).
        warped: the warped moving image, of the same shape, its minimum outside the moving image.
        label: the warped moving label, of the same shape, whole numbers, 0 outside the moving image.
        similarity: normalised cross-correlation of both images, -1 to 1, where the fixed image is above its minimum;
            0 if one of them is constant.
        weight: squared local correlation of both images, from ``LEAST_WEIGHT`` to 1, of the same shape.
        verdict: ``good``, ``doubtful`` or ``failed``.
        reasons: why it is not good; files are named without their folders.
    """

    fixed: torch.Tensor
    warped: torch.Tensor
    label: torch.Tensor
    similarity: float
    weight: torch.Tensor
    verdict: str = "good"
    reasons: tuple[str, ...] = ()


class Propagator:
    """Registers pairs of one task.

    Args:
        task: name of the task, see :data:`~scripts.cohorts.tasks.TASKS`.
        weights: weights of the network; None means the shipped ones.
        affine: find an affine map before the network, in place of the alignment in the task's configuration.

    Raises:
        InputError: when the weights do not exist or do not fit.
    """

    def __init__(self, task: str, weights: Path | None = None, affine: bool = False) -> None:
        overrides: dict[str, Any] = {} if weights is None else {"weights": weights}
        if affine:
            overrides["alignment"] = "affine"
        self.register = Registration.load(task, **overrides)

    def __call__(self, fixed: Path, moving: Path, label_moving: Path, **guidance: Any) -> Propagation:
        """Carry a label map from the moving to the fixed image.

        Args:
            fixed: the fixed image.
            moving: the moving image.
            label_moving: its label map.
            guidance: what else is known, as a :class:`~scripts.registration.Registration` takes it.

        Raises:
            InputError: when a file is not usable, or the images cannot be aligned.
        """
        pair = self.register(fixed, moving, label_moving, **guidance)
        image, warped, label = (
            convert_to_tensor(values, track_meta=False)[0] for values in (pair.fixed, pair.warped, pair.label_warped)
        )
        moving_image = convert_to_tensor(pair.moving, track_meta=False)
        window = pair.intensity_range
        weight = self._local_correlation(rescale(image, image, window), rescale(warped, moving_image, window))
        verdict = pair.judge(pair.evidence, pair.warnings)
        return Propagation(
            image,
            warped,
            label.to(torch.int64),
            similarity(image, warped),
            weight.clamp(min=LEAST_WEIGHT),
            verdict.verdict,
            tuple(_without_folders(reason, fixed, moving, label_moving) for reason in verdict.reasons),
        )

    def similarity(self, fixed: Path, moving: Path) -> float:
        """Return the similarity of two images after registration, see :class:`Propagation`."""
        pair = self.register(fixed, moving)
        return similarity(*(convert_to_tensor(image, track_meta=False)[0] for image in (pair.fixed, pair.warped)))

    def _local_correlation(self, fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
        dims = self.register.spatial_dims
        return as_volume(local_correlation(by_image(fixed[None], dims), by_image(warped[None], dims)), dims)[0]


def _without_folders(text: str, *files: str | Path) -> str:
    for file in files:
        text = text.replace(str(file), Path(file).name)
    return text


def similarity(fixed: torch.Tensor, warped: torch.Tensor) -> float:
    """Return the similarity of two images, see :class:`Propagation`."""
    value = pearson(fixed, warped, fixed > fixed.min())
    return 0.0 if math.isnan(value) else value


def fuse(labels: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Vote on the label of each voxel.

    Args:
        labels: labels of several propagations, whole numbers, all of the same shape.
        weights: weight of each vote in each voxel, of the same shape; with equal weights, the majority wins.

    Returns:
        the label with the most votes (the smallest one if several have the same number), and its share of all votes,
        from 0 to 1, of the same shape. Where all weights are 0, the result is the background with confidence 0.
    """
    total = torch.stack(list(weights)).sum(0)
    best, votes = torch.zeros_like(labels[0]), torch.full_like(total, -1)
    for value in torch.stack(list(labels)).unique().tolist():  # sorted
        found = torch.stack([torch.where(label == value, w, 0) for label, w in zip(labels, weights)]).sum(0)
        best, votes = torch.where(found > votes, value, best), torch.maximum(found, votes)
    confidence = torch.where(total > 0, votes / total.clamp(min=1e-9), 0)
    return torch.where(total > 0, best, 0), confidence


def names_in(label: np.ndarray, names: Mapping[int, str]) -> dict[str, int]:
    """Return name and value of each label in a map, in the order of the values, which 3D Slicer relies on."""
    return {names.get(value, f"label {value}"): value for value in map(int, np.unique(label)) if value}


def volumes_ml(label: np.ndarray, voxel_mm3: float, names: Mapping[str, int]) -> dict[str, float]:
    """Return the volume of each label in a label map, in millilitres."""
    return {name: round(float((label == value).sum()) * voxel_mm3 / 1000, 3) for name, value in names.items()}


def ejection_fraction(volumes: Sequence[float]) -> float | None:
    """Return (largest - smallest) / largest volume of a heart cycle, in percent; None if it is always empty."""
    largest = max(volumes)
    return round(100 * (largest - min(volumes)) / largest, 2) if largest > 0 else None


def write_like(values: np.ndarray, reference: nib.Nifti1Image) -> str:
    """Write a map on the grid of a reference, with its header, to a new temporary NIfTI file.

    Args:
        values: one value per voxel of the reference; whole numbers of up to 32 bits stay whole numbers.
        reference: the image whose grid and header are used.

    Returns:
        the name of the file, which the caller must remove.
    """
    with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
        pass
    nib.save(image_like(values.reshape(reference.shape).astype(_written_dtype(values)), reference), file.name)
    return file.name


def _written_dtype(values: np.ndarray) -> type[np.generic]:
    """Return a type that viewers read: float32, or the first of these integer types that fits all values."""
    if values.dtype.kind == "f":
        return np.float32
    low, high = int(values.min()), int(values.max())
    kinds = [np.iinfo(kind) for kind in (np.uint16, np.int32, np.uint32, np.int64)]
    return next(kind.dtype.type for kind in kinds if kind.min <= low and high <= kind.max)
