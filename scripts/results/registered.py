"""The results of one registered pair, computed when they are asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.utils import convert_to_tensor

from ..deformation.grid import apply_affine, as_volume, by_image, lattice, sample_grid, translation
from ..deformation.inversion import Inverse, invert_on_grid
from ..deformation.jacobian import jacobian_determinant
from ..deformation.transforms import Chain, before_network
from ..images.intensities import find_range, tissue_floor
from ..support.errors import InputError
from ..support.files import user_path
from ..support.keys import BRAIN_MASKS, IMAGES
from ..support.notices import collect_warnings
from ..verdict import Judge, Verdict
from .names import check_scheme
from .writer import choose_outputs, write_results

__all__ = ["UNKNOWN_ERRORS", "RegisteredPair"]

UNKNOWN_ERRORS = (
    "error_mm: nothing is known of the errors of this registration: expected the network of a shipped task, or of one "
    "that python -m scripts.tools.errors has learned."
)


class RegisteredPair:
    """One registered pair. All results but the displacement are computed when they are first asked for, and kept.

    Images, labels and fields lie on the fixed image's own grid, in its orientation: MetaTensors of shape
    (C, X, Y, Z), on the CPU; a single slice has Z = 1. The inverse lies on the moving image's grid.

    Args:
        inputs: the pair as it was given: ``fixed``, ``moving`` and, if there are any, labels and displacements.
        data: the pair as it was read: ``native_fixed``, ``native_moving`` and labels, (1, X, Y, Z), and ``alignment``,
            the 4x4 map from the fixed to the moving world that was applied before the network.
        ddf: the displacement in voxels of the fixed grid, alignment included, shape (3, X, Y, Z).
        spatial_dims: 2 or 3, as the network. The fields of a 2D network are measured slice by slice.
        measure: computes the ``metrics`` of this object.
        weights: file of the network's weights; None if no weights were used.
        true_ddf: the true displacement, if it is known.
        fill: the intensity outside of the moving image; None means its minimum.

    Attributes:
        fixed, moving: the images as read, each on its own grid.
        label_fixed, label_moving: the label maps as read, or None.
        brain_masks: the masks of the brains that the network saw, by their keys, each on its own grid.
        intensity_range: the intensities that became 0 and 1; None means those of each image by itself.
        ddf: the displacement in voxels: warped(x) = moving(x + ddf(x)).
        warnings: warnings about the images or the result, one line each.
        evidence: what the verdict is made of, see :func:`~scripts.verdict.find_evidence`.
        judge: makes the verdict.
        expect_error: computes the expected error in mm on the network's grid, and where there is tissue, (2, X, Y, Z);
            None where nothing was learned of the registration's errors.
        settings: a text that changes with the options of the registration, or None.
        seconds: time of each stage: ``read``, ``network``, ``native_grid`` and, after saving, ``write``.
    """

    def __init__(
        self,
        inputs: Mapping[str, Any],
        data: Mapping[Hashable, Any],
        ddf: torch.Tensor,
        spatial_dims: int,
        measure: Callable[[RegisteredPair], dict[str, Any]],
        weights: Path | None = None,
        true_ddf: torch.Tensor | None = None,
        fill: float | None = None,
    ) -> None:
        self.inputs = dict(inputs)
        self.fixed: MetaTensor = data["native_fixed"]
        self.moving: MetaTensor = data["native_moving"]
        self.label_fixed: MetaTensor | None = data.get("label_fixed")
        self.label_moving: MetaTensor | None = data.get("label_moving")
        self.brain_masks: dict[str, MetaTensor] = {key: data[key] for key in BRAIN_MASKS if key in data}
        self.alignment: torch.Tensor = data["alignment"]
        self.before_network = before_network(data)
        self.intensity_range: tuple[float, float] | None = data.get("intensity_range")
        self.ddf = self._on_fixed_grid(ddf, self.moving)
        self.true_ddf = true_ddf
        self.spatial_dims = spatial_dims
        self.weights = weights
        self.fill = fill
        self.warnings: list[str] = []
        self.evidence: dict[str, float] = {}
        self.judge = Judge({})
        self.expect_error: Callable[[], MetaTensor] | None = None
        self.settings: str | None = None
        self.seconds: dict[str, float] = {}
        self._measure = measure

    @cached_property
    def warped(self) -> MetaTensor:
        """The moving image, linearly interpolated; ``fill`` outside of it."""
        return self.carry(self.moving)

    @cached_property
    def label_warped(self) -> MetaTensor | None:
        """The moving label, by nearest neighbour; 0 outside of it; None if there is none."""
        return None if self.label_moving is None else self.carry(self.label_moving, "nearest")

    @property
    def resampled(self) -> MetaTensor:
        """The moving image before the registration, with the alignment or initial transform alone."""
        return self._align(self.moving, "bilinear")

    def resampled_plane(self, axis: int, index: int) -> torch.Tensor:
        """One plane of :attr:`resampled` across an axis of the fixed grid, such as (X, Y) for the last axis."""
        first, shape = [0, 0, 0], list(self.fixed.shape[1:])
        first[axis], shape[axis] = index, 1
        return convert_to_tensor(self._align(self.moving, "bilinear", first, shape), track_meta=False)[0].squeeze(axis)

    @property
    def label_resampled(self) -> MetaTensor | None:
        """The moving label before the registration, with the alignment alone; None if there is none."""
        label = self.label_moving
        return None if label is None else self._align(label, "nearest")

    @cached_property
    def jacobian(self) -> MetaTensor:
        """The Jacobian determinant of x + ddf(x), (1, X, Y, Z): below 0 the field folds."""
        determinant = jacobian_determinant(by_image(self.ddf, self.spatial_dims))
        return self._on_fixed_grid(as_volume(determinant, self.spatial_dims)[None], self.moving)

    @cached_property
    def error_mm(self) -> MetaTensor:
        """The expected length of the error of the displacement in mm, (1, X, Y, Z).

        It is 0 where the fixed image has background or the network saw nothing. It takes a second registration, from
        the fixed to the moving image.

        Raises:
            InputError: when nothing was learned of the errors of this registration.
        """
        if self.expect_error is None:
            raise InputError(UNKNOWN_ERRORS)
        start = time.perf_counter()
        expected = self.expect_error()
        to_network = torch.linalg.solve(expected.affine.double(), self.fixed.affine.double())
        shape, plain = self.fixed.shape[1:], convert_to_tensor(expected, track_meta=False)

        def locate(rows: slice) -> torch.Tensor:
            return apply_affine(to_network, lattice(shape, rows=rows))

        errors = sample_grid(plain[:1], shape, locate) * sample_grid(plain[1:], shape, locate, "nearest", fill=0)
        self.seconds["error_map"] = time.perf_counter() - start
        return self._on_fixed_grid(errors, self.moving)

    @property
    def expected_error_mm(self) -> dict[str, float]:
        """The ``mean`` and the ``percentile95`` of :attr:`error_mm` in the tissue; NaN where there is none."""
        errors = convert_to_tensor(self.error_mm, track_meta=False).numpy()
        errors = errors[errors > 0]
        if not errors.size:
            return {"mean": math.nan, "percentile95": math.nan}
        return {"mean": float(errors.mean(dtype=np.float64)), "percentile95": float(np.percentile(errors, 95))}

    @property
    def inverse(self) -> MetaTensor:
        """The displacement that undoes this one, on the moving image's grid and in its voxels, (3, *moving grid)."""
        return MetaTensor(self.inversion.ddf, meta=deepcopy(self.moving.meta))

    @cached_property
    def inversion(self) -> Inverse:
        """The inverse, and its accuracy."""
        ddf = convert_to_tensor(self.ddf, track_meta=False)
        return invert_on_grid(ddf, self.fixed.affine, self.alignment, self.moving.affine, self.moving.shape[1:])

    @cached_property
    def floors(self) -> dict[str, float]:
        """The intensities of ``fixed`` and ``moving`` below which there is only padding, see :func:`tissue_floor`."""
        return {key: tissue_floor(getattr(self, key)) for key in IMAGES}

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float] | None]:
        """The intensities of ``fixed`` and ``moving`` that become 0 and 1; None where it has only one."""
        window = self.intensity_range
        return {key: window or find_range(self._tissue(key).numpy()) for key in IMAGES}

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The measures, in nested dictionaries as in ``metrics.json``; NaN if a measure is not defined."""
        start = time.perf_counter()
        with collect_warnings(self.warnings):
            metrics = self._measure(self)
        self.seconds["native_grid"] = self.seconds.get("native_grid", 0.0) + time.perf_counter() - start
        return metrics

    @property
    def verdict(self) -> Verdict:
        """Whether the registration can be trusted, by its measures and all warnings."""
        _ = self.metrics  # may add warnings
        return self.judge(self.evidence, self.warnings)

    def carry(self, image: MetaTensor, mode: str = "bilinear") -> MetaTensor:
        """Resample any image or label of the moving subject to the fixed grid.

        Args:
            image: shape (C, X, Y, Z) or (C, X, Y), on any grid in the moving image's world.
            mode: ``bilinear``, with ``fill`` outside of the image, or its minimum; or ``nearest`` for labels, with 0
                there.

        Returns:
            shape (C, X, Y, Z) of the fixed grid, in its own data type, with the fixed image's metadata and its own
            file name.
        """
        affine = torch.as_tensor(to_affine_nd(3, image.affine.double().cpu()))
        to_image = torch.linalg.solve(affine, self.fixed.affine.double())
        shape, ddf = self.fixed.shape[1:], convert_to_tensor(self.ddf, track_meta=False)

        def locate(rows: slice) -> torch.Tensor:
            return apply_affine(to_image, lattice(shape, rows=rows) + ddf[:, rows])

        return self._sample(image, locate, mode, shape)

    def save(
        self,
        folder: str | Path,
        overwrite: bool = False,
        outputs: Sequence[str] | None = None,
        names: str | None = None,
    ) -> None:
        """Write the files that ``inference.yaml`` writes: see ``scripts.results.writer.OUTPUTS``.

        Args:
            folder: the folder for the files; it is made if it does not exist.
            overwrite: replace existing files with these names.
            outputs: names without their endings, such as ``["displacement"]``; None means the usual ones.
            names: ``bids`` for names of BIDS derivatives.

        Raises:
            InputError: when there are such files, or the folder cannot be written to.
        """
        write_results(self, user_path(folder, "folder"), overwrite, choose_outputs(outputs), check_scheme(names))

    def _tissue(self, key: str) -> torch.Tensor:
        return convert_to_tensor(getattr(self, key), track_meta=False)[0].clamp(min=self.floors[key])

    def _align(
        self, image: MetaTensor, mode: str, first: Sequence[int] = (0, 0, 0), shape: Sequence[int] | None = None
    ) -> MetaTensor:
        """Sample an image before the registration on a part of the fixed grid, which begins at its voxel ``first``."""
        affine, before, shape = self.fixed.affine.double(), self.before_network, shape or self.fixed.shape[1:]
        affine = affine @ translation(first)
        to_image = torch.linalg.inv(image.affine.double())
        aligned = to_image @ self.alignment @ affine

        def locate(rows: slice) -> torch.Tensor:
            if not isinstance(before, Chain):
                return apply_affine(aligned, lattice(shape, rows=rows))
            points = lattice(shape, torch.float64, rows)
            return apply_affine(to_image, before(apply_affine(affine, points.flatten(1)))).view_as(points).float()

        return self._sample(image, locate, mode, shape)

    def _sample(
        self, image: MetaTensor, locate: Callable[[slice], torch.Tensor], mode: str, shape: Sequence[int]
    ) -> MetaTensor:
        values = convert_to_tensor(image, track_meta=False).cpu()
        values = values.float() if values.is_floating_point() else values  # ids may be too large for float32
        values = values if values.ndim == 4 else values[..., None]
        fill = 0.0 if mode == "nearest" else float(values.min()) if self.fill is None else self.fill
        return self._on_fixed_grid(sample_grid(values, shape, locate, mode, fill), image)

    def _on_fixed_grid(self, values: torch.Tensor, source: MetaTensor) -> MetaTensor:
        """Values with the fixed image's metadata, but the file name of their source, by which MONAI's writers go."""
        meta = deepcopy(self.fixed.meta)
        meta["filename_or_obj"] = source.meta.get("filename_or_obj", "")
        plain = convert_to_tensor(values, track_meta=False)
        return MetaTensor(plain, meta=meta, applied_operations=deepcopy(self.fixed.applied_operations))
