"""Labels carried from one image to another, as ``inference.yaml`` registers them. Knows nothing of MONAI Label."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from ..cohorts.tasks import find_task
from ..deformation.formats import image_like
from ..networks.similarity import local_correlation
from ..registration.inferer import predict
from ..registration.native import ToNativeGridd, WarpMovingd
from ..results.measures import pearson, rescale

__all__ = [
    "Propagation",
    "Propagator",
    "ejection_fraction",
    "fuse",
    "names_in",
    "volumes_ml",
    "write_like",
]

LEAST_WEIGHT = 1e-3  # where the images say nothing, the majority decides


@dataclass(frozen=True)
class Propagation:
    """A moving image and label on the grid of the fixed image.

    Attributes:
        fixed: the fixed image as read, (X, Y, Z).
        warped: the moving image, of the same shape, 0 outside of it.
        label: the moving label, of the same shape, whole numbers; 0 outside of it.
        similarity: normalised cross-correlation of both images, -1 to 1, where the fixed one is above its minimum.
        weight: squared local correlation of both images, ``LEAST_WEIGHT`` to 1, of the same shape.
    """

    fixed: torch.Tensor
    warped: torch.Tensor
    label: torch.Tensor
    similarity: float
    weight: torch.Tensor


class Propagator:
    """Registers pairs of one task.

    Args:
        task: its name, as in :data:`~scripts.cohorts.tasks.TASKS`.
        weights: of its network; None is the shipped ones.
        affine: find an affine map before the network, in place of what the task's configuration does.

    Raises:
        InputError: when the weights are not there or do not fit.
    """

    def __init__(self, task: str, weights: Path | None = None, affine: bool = False) -> None:
        parser = ConfigParser()
        parser.read_config(find_task(task).config_files("inference"))
        if weights is not None:
            parser["weights"] = str(weights)
        if affine:
            parser["alignment"] = "affine"
        self.spatial_dims: int = parser["spatial_dims"]
        self.device = parser.get_parsed_content("device")
        self.network = parser.get_parsed_content("network").eval()
        self.inferer = parser.get_parsed_content("inferer")
        self.preprocessing = parser.get_parsed_content("preprocessing")
        self.to_native = Compose([ToNativeGridd(), WarpMovingd()])

    @torch.inference_mode()
    def __call__(self, fixed: Path, moving: Path, label_moving: Path) -> Propagation:
        """Carry a label map from the moving to the fixed image.

        Raises:
            InputError: when a file is not usable, or the images cannot be brought together.
        """
        data = self._register({"fixed": fixed, "moving": moving, "label_moving": label_moving})
        image, warped = data["native_fixed"].as_tensor()[0], data["warped"][0]
        window = data["intensity_range"]
        scaled = [rescale(image, image, window), rescale(warped, data["native_moving"].as_tensor(), window)]
        return Propagation(
            image,
            warped,
            data["warped_label"][0].to(torch.int32),
            self._similarity(data),
            self._local_correlation(*scaled).clamp(min=LEAST_WEIGHT),
        )

    @torch.inference_mode()
    def similarity(self, fixed: Path, moving: Path) -> float:
        """How alike two images are after registration, see :class:`Propagation`."""
        return self._similarity(self._register({"fixed": fixed, "moving": moving}))

    def _register(self, files: Mapping[str, Path]) -> dict[Any, Any]:
        data: dict[Any, Any] = self.preprocessing({key: str(path) for key, path in files.items()})
        data["ddf"] = predict(data["image"], self.network, self.inferer, self.device)
        return self.to_native(data)

    @staticmethod
    def _similarity(data: Mapping[Any, Any]) -> float:
        image = data["native_fixed"].as_tensor()[0]
        return pearson(image, data["warped"][0], image > image.min())

    def _local_correlation(self, fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
        if self.spatial_dims == 3:
            return local_correlation(fixed[None, None], warped[None, None])[0, 0]
        slices, warped_slices = (image.movedim(-1, 0)[:, None] for image in (fixed, warped))
        return local_correlation(slices, warped_slices)[:, 0].movedim(0, -1)


def fuse(labels: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Vote on the label of each voxel.

    Args:
        labels: of several propagations, whole numbers, all of one shape.
        weights: how much each vote counts in each voxel, of the same shape; equal ones make the majority win.

    Returns:
        the label with the most votes (of equal ones the smallest), and its share of all votes, 0 to 1, of that shape;
        where no vote counts anything, the background with confidence 0.
    """
    total = torch.stack(list(weights)).sum(0)
    best, votes = torch.zeros_like(labels[0]), torch.full_like(total, -1)
    for value in torch.stack(list(labels)).unique().tolist():  # sorted
        found = torch.stack([torch.where(label == value, w, 0) for label, w in zip(labels, weights)]).sum(0)
        best, votes = torch.where(found > votes, value, best), torch.maximum(found, votes)
    confidence = torch.where(total > 0, votes / total.clamp(min=1e-9), 0)
    return torch.where(total > 0, best, 0), confidence


def names_in(label: np.ndarray, names: Mapping[int, str]) -> dict[str, int]:
    """Name and value of each label in a map, in the order of the values, by which 3D Slicer tells them apart."""
    return {names.get(value, f"label {value}"): value for value in map(int, np.unique(label)) if value}


def volumes_ml(label: np.ndarray, voxel_mm3: float, names: Mapping[str, int]) -> dict[str, float]:
    """Volume of each label of a label map, in millilitres."""
    return {name: round(float((label == value).sum()) * voxel_mm3 / 1000, 3) for name, value in names.items()}


def ejection_fraction(volumes: Sequence[float]) -> float | None:
    """(largest - smallest) / largest volume of a heart cycle, in percent; None where it is always empty."""
    largest = max(volumes)
    return round(100 * (largest - min(volumes)) / largest, 2) if largest > 0 else None


def write_like(values: np.ndarray, reference: nib.Nifti1Image) -> str:
    """Write a map on the grid of a reference, with its header, to a new temporary NIfTI file.

    Args:
        values: as many as the reference has voxels; whole numbers stay such.
        reference: of which only grid and header are used.

    Returns:
        the file's name, for the caller to remove.
    """
    dtype = np.float32 if values.dtype.kind == "f" else np.uint16
    with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
        pass
    nib.save(image_like(values.reshape(reference.shape).astype(dtype), reference), file.name)
    return file.name
