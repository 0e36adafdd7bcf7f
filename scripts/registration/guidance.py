"""From what a user knows of a pair to the channels that guide the network: files, checks, and the network's grid."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_tensor
from scipy.ndimage import distance_transform_edt, label

from ..deformation import transforms
from ..deformation.foreign_formats import Images
from ..deformation.grid import apply_affine, lattice, sample_grid
from ..deformation.points import read_points
from ..deformation.transform_files import read_transform
from ..images.intensities import ScaleIntensitiesd, clamp_padding
from ..images.loading import as_nifti, read_mask, read_nifti
from ..networks.guidance import GuidanceLayout, Landmarks
from ..support.command_line import number
from ..support.errors import InputError
from ..support.keys import CONTRASTS, IMAGES, LABELS, LANDMARKS, MASKS
from ..support.notices import image_name, warn

__all__ = ["ConcatPaird", "FillMaskHolesd", "GuideNetworkd", "LoadGuidanced", "ResampleThroughd"]

LABEL_WIDTH = 3.0  # voxels of the network: where the distance from the border of a label is clipped
FAR = 1e6  # mm
LANDMARK_WIDTH = 10.0  # mm: standard deviation of the correction around a landmark


class LoadGuidanced(Transform):
    """Read and check what is known of a pair in addition to its images.

    ``mask_fixed`` and ``mask_moving`` become 1 where an image counts and 0 elsewhere, on the grid of their image;
    ``contrasts_fixed`` and ``contrasts_moving`` lists of images; ``landmarks_fixed`` and ``landmarks_moving`` points in
    RAS millimetres, (3, N). Of ``initial_transform``, which takes the place of an alignment, an affine map becomes
    ``alignment``, and any other one a :class:`~scripts.deformation.transforms.Transform`.

    Args:
        spatial_dims: 2 or 3, as the network.
        use_labels: whether both label maps drive the registration, which must then be there.

    Raises:
        InputError: when one of these is not usable, or does not fit the images.
    """

    def __init__(self, spatial_dims: int, use_labels: bool = False) -> None:
        self.spatial_dims = spatial_dims
        self.use_labels = use_labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if self.use_labels:
            for key in LABELS:
                if key not in data:
                    raise InputError(f"use_labels needs both label maps: {key} is missing.")
        for mask, role in zip(MASKS, IMAGES):
            if mask in data:
                result[mask] = read_mask(data[mask], mask, data[role], self.spatial_dims)
        if any(key in data for key in CONTRASTS):
            counts = [1 + len(data.get(key, ())) for key in CONTRASTS]
            if counts[0] != counts[1]:
                raise InputError(f"fixed has {counts[0]} images and moving has {counts[1]}: expected as many of both.")
            for key in CONTRASTS:
                result[key] = [read_nifti(source, key, self.spatial_dims) for source in data[key]]
        if any(key in data for key in LANDMARKS):
            result |= _read_landmarks(data)
        if "initial_transform" in data:
            chain = _read_initial_transform(data["initial_transform"], data)
            affine = chain.as_affine()
            result["alignment"] = torch.eye(4, dtype=torch.float64) if affine is None else affine.matrix
            result["initial_transform"] = chain
            if affine is not None:
                del result["initial_transform"]
        return result


def _read_landmarks(data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    found: dict[Hashable, Any] = {}
    for key, role in zip(LANDMARKS, IMAGES):
        if key not in data:
            raise InputError(f"{key} is missing: expected the same landmarks in both images.")
        source = data[key]
        points = read_points(source, role=key).points if isinstance(source, str | Path) else np.asarray(source)
        if points.ndim != 2 or points.shape[1] != 3:
            raise InputError(f"{key} has shape {points.shape}: expected (N, 3), RAS millimetres.")
        found[key] = torch.from_numpy(points.astype(np.float64).T.copy())
        image = data[role]
        voxels = apply_affine(torch.linalg.inv(image.affine.double()), found[key])
        size = torch.tensor(image.shape[1:])[:, None]
        outside = ((voxels < -0.5) | (voxels > size - 0.5)).any(0).nonzero().flatten().tolist()
        if outside:
            place = ", ".join(f"{x:.1f}" for x in points[outside[0]])
            raise InputError(
                f"{key}: point {outside[0] + 1} at ({place}) mm lies outside of {image_name(image)}: "
                "expected points in the image, in RAS or the frame that the file names."
            )
    counts = [found[key].shape[1] for key in LANDMARKS]
    if counts[0] != counts[1]:
        raise InputError(f"landmarks: found {counts[0]} in fixed and {counts[1]} in moving: expected pairs.")
    return found


def _read_initial_transform(source: Any, data: Mapping[Hashable, Any]) -> transforms.Chain:
    if isinstance(source, transforms.Transform):
        return source if isinstance(source, transforms.Chain) else transforms.Chain([source])
    if isinstance(source, str | Path):
        files = [data[key].meta["filename_or_obj"] for key in IMAGES]
        known = [as_nifti(file, key) if Path(file).exists() else None for file, key in zip(files, IMAGES)]
        return read_transform(source, "initial_transform", Images(*known))
    matrix = torch.as_tensor(np.asarray(source), dtype=torch.float64)
    if matrix.shape != (4, 4) or not torch.isfinite(matrix).all() or torch.linalg.det(matrix) == 0:
        raise InputError("initial_transform: expected a file, a transform, or a 4x4 matrix that can be inverted.")
    return transforms.Chain([transforms.Affine(matrix)])


class FillMaskHolesd(Transform):
    """Replace what an image shows in the holes of its mask by the nearest values around them.

    So a lesion does not change the range of the intensities, the alignment, or what the network sees beside it. What
    lies around the masked region stays as it is.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for mask, role in zip(MASKS, IMAGES):
            if mask in data:
                result[role] = _filled(data[role], data[mask][0].numpy() > 0)
        return result


def _filled(image: MetaTensor, counts: np.ndarray) -> MetaTensor:
    holes, _ = label(~counts)
    # along an axis of one or two voxels everything lies at the border
    faces = [holes.take(end, axis) for axis, n in enumerate(holes.shape) if n > 2 for end in (0, -1)]
    holes[np.isin(holes, np.unique(np.concatenate([face.ravel() for face in faces])))] = 0
    if not holes.any():
        return image
    nearest = distance_transform_edt(~counts, image.pixdim.tolist(), return_distances=False, return_indices=True)
    result = image.clone()
    plain = convert_to_tensor(image, track_meta=False)[0].numpy()
    result[0] = torch.from_numpy(np.where(holes > 0, plain[tuple(nearest)], plain))
    return result


class ResampleThroughd(Transform):
    """Resample ``moving`` through an initial transform that is not affine to the grid of ``fixed``."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if "initial_transform" not in data:
            return dict(data)
        fixed = data["fixed"]
        keys = [key for key in ("moving", "blank_moving") if key in data]
        return {**data, **{key: _on_grid(data[key], fixed, data["initial_transform"]) for key in keys}}


def _on_grid(
    image: MetaTensor, fixed: MetaTensor, transform: transforms.Transform | None = None, fill: float | None = None
) -> MetaTensor:
    """Sample an image, (C, X, Y, Z), on the grid of another one, at the points to which a transform takes them."""
    to_image, affine, shape = torch.linalg.inv(image.affine.double()), fixed.affine.double(), fixed.shape[1:]

    def locate(rows: slice) -> torch.Tensor:
        points = apply_affine(affine, lattice(shape, torch.float64, rows))
        moved = points.flatten(1) if transform is None else transform(points.flatten(1))
        return apply_affine(to_image, moved).view_as(points).float()

    values = sample_grid(convert_to_tensor(image, track_meta=False).float(), shape, locate, fill=fill)
    return MetaTensor(values, affine=affine, meta={"filename_or_obj": image.meta["filename_or_obj"]})


class GuideNetworkd(Transform):
    """Bring what is known of a pair to the grid of the network: ``guidance``, its channels, and ``layout``.

    Args:
        spatial_dims: 2 or 3, as the network.
        use_labels: whether the label maps drive the registration.
        channel_weights: how much each contrast counts, the first one included; None means 1.

    Raises:
        InputError: when there are not as many weights as contrasts, or the masks leave nothing.
    """

    def __init__(
        self, spatial_dims: int, use_labels: bool = False, channel_weights: Sequence[float] | None = None
    ) -> None:
        self.spatial_dims = spatial_dims
        self.use_labels = use_labels
        weights = None if channel_weights is None else list(channel_weights)
        self.channel_weights = weights and [number("channel_weights", weight, above=0) for weight in weights]
        self.scale = ScaleIntensitiesd()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        fixed = data["fixed"]
        transform = transforms.before_network(data) or transforms.Chain([])
        sides = {"moving": transform, "fixed": None}
        parts: list[torch.Tensor] = []
        masks = any(key in data for key in MASKS)
        if masks:
            parts += self._masks(data, sides)
        contrasts = self._contrasts(data, sides)
        labels = self._labels(data, sides) if self.use_labels else []
        layout = GuidanceLayout(masks, len(contrasts) // 2, len(labels) // 2, self._landmarks(data, transform))
        if layout == GuidanceLayout():
            return dict(data)
        plain = [convert_to_tensor(part, track_meta=False) for part in (*parts, *contrasts, *labels)]
        channels = torch.cat(plain) if plain else torch.empty(0, *fixed.shape[1:])
        return {**data, "guidance": channels, "layout": layout}

    def _masks(self, data: Mapping[Hashable, Any], sides: Mapping[str, Any]) -> list[torch.Tensor]:
        fixed, found = data["fixed"], []
        for role, transform in sides.items():
            mask = data.get(f"mask_{role}")
            found.append(torch.ones(fixed.shape) if mask is None else _on_grid(mask, fixed, transform, fill=0))
        if not (found[0] * found[1] > 0).any():
            raise InputError(
                "mask_fixed and mask_moving have no point in common: nothing would drive the registration."
            )
        return found

    def _contrasts(self, data: Mapping[Hashable, Any], sides: Mapping[str, Any]) -> list[torch.Tensor]:
        count = 1 + len(data.get(CONTRASTS[0], ()))
        weights = self.channel_weights or [1.0] * count
        if len(weights) != count:
            raise InputError(f"channel_weights has {len(weights)} numbers and each side {count} images.")
        found: list[torch.Tensor] = []
        for role, transform in sides.items():
            for image, weight in zip(data.get(f"contrasts_{role}", ()), weights[1:]):
                on_grid = _on_grid(clamp_padding(image, role), data["fixed"], transform)
                found.append(self.scale.scale(on_grid) * math.sqrt(weight / weights[0]))
        return found

    def _labels(self, data: Mapping[Hashable, Any], sides: Mapping[str, Any]) -> list[torch.Tensor]:
        ids = [set(data[key].unique().tolist()) - {0} for key in LABELS]
        common = sorted(set.intersection(*ids))
        if not common:
            names = " and ".join(image_name(data[key]) for key in LABELS)
            raise InputError(f"{names} have no id in common: expected label maps that can drive a registration.")
        width = LABEL_WIDTH * float(data["fixed"].pixdim[: self.spatial_dims].min())
        warn("both label maps drive the registration: their Dice does not tell how good it is.")
        return [
            _on_grid(self._distance(data[f"label_{role}"], number, width), data["fixed"], transform, fill=0)
            for role, transform in sides.items()
            for number in common
        ]

    def _distance(self, label_map: MetaTensor, number: int, width: float) -> MetaTensor:
        """Return the distance from the border of a label, from 0 outside to 1 inside, clipped at a width in mm."""
        inside = (convert_to_tensor(label_map, track_meta=False)[0] == number).numpy()
        spacing = label_map.pixdim.tolist()
        if self.spatial_dims == 2:
            spacing[2] = FAR  # each slice by itself
        to_border = min(spacing) / 2  # from the centre of a voxel
        signed = np.where(inside, distance_transform_edt(inside, spacing), -distance_transform_edt(~inside, spacing))
        signed -= np.where(inside, to_border, -to_border)
        values = np.clip(0.5 + 0.5 * signed / width, 0, 1).astype(np.float32)
        return MetaTensor(torch.from_numpy(values)[None], meta=label_map.meta)

    def _landmarks(self, data: Mapping[Hashable, Any], transform: transforms.Transform) -> Landmarks | None:
        if LANDMARKS[0] not in data:
            return None
        fixed = data["fixed"]
        to_voxels = torch.linalg.inv(fixed.affine.double())
        ends = [data[LANDMARKS[0]], transform.inverse()(data[LANDMARKS[1]])]
        voxels = [apply_affine(to_voxels, points) for points in ends]
        steps = (torch.tensor(fixed.shape[1:]) - 1).clamp(min=1).double()
        width = LANDMARK_WIDTH / fixed.affine.double()[:3, :3].norm(dim=0) / steps
        slices = voxels[0][2].round().long() if self.spatial_dims == 2 else torch.zeros(len(voxels[0][0])).long()
        dims = self.spatial_dims
        positions = [(points / steps[:, None])[:dims].t().float() for points in voxels]
        return Landmarks(positions[0], positions[1], width[:dims].float(), slices)


class ConcatPaird(Transform):
    """Make ``image`` of ``moving``, ``fixed`` and what guides the network; both images become views of it."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = torch.cat([data["moving"], data["fixed"], *([data["guidance"]] if "guidance" in data else [])])
        return {**data, "image": image, "moving": image[:1], "fixed": image[1:2]}
