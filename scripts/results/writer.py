"""The files of one registration, written together or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..deformation.formats import ddf_to_itk, image_like
from ..images.loading import open_nifti
from ..support.bundle import versions
from ..support.errors import InputError
from ..support.files import finite, prepare_folder, replace_files, sha256, user_path
from .overview import draw_overview

__all__ = ["RegistrationWriter"]

INPUTS = ("fixed", "moving", "label_fixed", "label_moving", "displacement", "true_displacement")
OUTPUTS = (
    "moving_warped.nii.gz",
    "label_warped.nii.gz",
    "displacement.nii.gz",
    "displacement_inverse.nii.gz",
    "jacobian_determinant.nii.gz",
    "overview.png",
    "metrics.json",
)


class RegistrationWriter:
    """Writes the results of pairs below an output folder, all on the fixed image's own grid and with its header.

    Args:
        output_dir: the folder; a pair's own is ``output_dir / name``.
        weights: the file whose checksum goes into ``metrics.json``; None when no network is used.
        overwrite: replace results that are there.
    """

    def __init__(self, output_dir: str | Path, weights: str | Path | None, overwrite: bool = False) -> None:
        self.output_dir = user_path(output_dir, "output_dir")
        self.weights = None if weights is None else user_path(weights, "weights")
        self.overwrite = overwrite

    def folder(self, pair: Mapping[Hashable, Any]) -> Path:
        return self.output_dir / pair["name"]

    def prepare(self) -> None:
        """See :func:`prepare_folder`."""
        prepare_folder(self.output_dir)

    def is_done(self, pair: Mapping[Hashable, Any]) -> bool:
        """Whether the pair's folder holds the result of the same files and weights, and may be skipped.

        Raises:
            InputError: when it holds the result of others and may not be overwritten.
        """
        path = self.folder(pair) / "metrics.json"
        readable = all(Path(pair[key]).is_file() for key in INPUTS if key in pair)
        if self.overwrite or not readable or not path.is_file():
            return False
        try:
            done = json.loads(path.read_text())["sha256"]
        except (OSError, ValueError, KeyError):
            done = None
        if done == self._checksums(pair):
            return True
        raise InputError(
            f"output_dir: {path.parent} holds the result of other files or weights: "
            "expected an empty folder, or --overwrite true."
        )

    def write(self, pair: Mapping[Hashable, Any], result: Mapping[Hashable, Any], seconds: dict[str, float]) -> None:
        """Write the files named in ``OUTPUTS``; ``metrics.json`` comes last, so its presence says that all are there.

        Args:
            pair: the names of the input files.
            result: what the postprocessing made of them.
            seconds: time of each stage so far; ``write`` is added.
        """
        start = time.perf_counter()
        with replace_files(self.folder(pair), OUTPUTS) as temporary:
            for file, image in _images(open_nifti(pair["fixed"], "fixed"), result).items():
                nib.save(image, temporary / file)
            draw_overview(result, temporary / "overview.png")
            metrics = {
                **result["metrics"],
                "seconds": {**seconds, "write": time.perf_counter() - start},
                "files": {key: str(Path(pair[key]).resolve()) for key in INPUTS if key in pair},
                "sha256": self._checksums(pair),
                "versions": versions(),
            }
            (temporary / "metrics.json").write_text(json.dumps(finite(metrics), indent=2, allow_nan=False) + "\n")

    def _checksums(self, pair: Mapping[Hashable, Any]) -> dict[str, str]:
        paths = {key: Path(pair[key]) for key in INPUTS if key in pair}
        if self.weights is not None and "displacement" not in pair:  # which stands in the network's place
            paths = {"weights": self.weights, **paths}
        return {key: sha256(path) for key, path in paths.items()}


def _images(fixed: nib.Nifti1Image, result: Mapping[Hashable, Any]) -> dict[str, nib.Nifti1Image]:
    def scalar(values: Any, dtype: Any = np.float32) -> nib.Nifti1Image:
        return image_like(np.asarray(values).reshape(fixed.shape[:3]).astype(dtype), fixed)

    images = {
        "moving_warped.nii.gz": scalar(result["warped"]),
        "displacement.nii.gz": ddf_to_itk(np.asarray(result["ddf"]), fixed),
        "displacement_inverse.nii.gz": ddf_to_itk(np.asarray(result["inverse_ddf"]), fixed),
        "jacobian_determinant.nii.gz": scalar(result["jacobian"]),
    }
    if "warped_label" in result:
        images["label_warped.nii.gz"] = scalar(result["warped_label"], np.int32)
    return images
