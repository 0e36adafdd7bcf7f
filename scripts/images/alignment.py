"""Alignment of the moving image to the fixed image in world space, before the network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import ensure_tuple, optional_import

from ..support.errors import InputError
from .intensities import tissue_floor

__all__ = ["RAS_TO_LPS", "AlignWorldsd", "find_affine", "grid_corners", "one_itk_thread", "place_in_itk", "to_itk"]

sitk, HAS_SIMPLEITK = optional_import("SimpleITK")

MODES = ("world", "centers", "affine")
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])  # signs of the coordinates; the same for LPS to RAS
FLIP = np.diag([*RAS_TO_LPS, 1.0])
FINEST_VOXELS = 1e6  # voxels of the fixed image in the last stage of the affine registration
COARSEST_VOXELS = 4e3  # stages with fewer voxels are left out
START_ANGLES = (-40, -20, 0, 20, 40)  # degrees about each axis
SAMPLES = 5e4  # voxels that a stage samples
VOLUME_CHANGE = (0.2, 5.0)  # an affine map that changes the volume more than this cannot be right


class AlignWorldsd(Transform):
    """Align the moving image to the fixed image before the network. Only its affine changes.

    The transform adds ``alignment``, the 4x4 map from the fixed to the moving world (pull-back, like a ddf). The
    displacement on the native grid includes this map. Where the data has an ``alignment`` already, that is used.

    Args:
        mode: ``world`` trusts the scanner coordinates of both files (the identity); ``centers`` moves the centre of the
            moving image to the centre of the fixed image, for crops whose origin means nothing; ``affine`` registers
            them with :func:`find_affine`, unless one of them is constant.
        keys: the images to align: ``moving`` and, where it is used on the same grid, ``label_moving``.

    Raises:
        InputError: when the mode is unknown, the images do not overlap after alignment, or no plausible affine map is
            found.
    """

    def __init__(self, mode: str = "world", keys: KeysCollection = "moving") -> None:
        if mode not in MODES:
            raise InputError(f"unknown alignment '{mode}': expected {', '.join(MODES[:-1])} or {MODES[-1]}.")
        self.mode = mode
        self.keys = ensure_tuple(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        fixed, moving = data["fixed"], data["moving"]
        if "initial_transform" in data:  # which is no affine map, and is applied when the moving image is resampled
            return dict(data)
        alignment = data["alignment"] if "alignment" in data else self._find(fixed, moving)
        if _share_inside(fixed, moving, alignment) == 0:
            raise InputError(
                f"{_names(fixed, moving)} do not overlap in world space: found {_extent(fixed)} and "
                f"{_extent(moving)}, expected a common part; --alignment centers or affine ignores the origins."
            )
        aligned = {key: data[key].clone() for key in self.keys if key in data}
        for image in aligned.values():
            image.affine = torch.linalg.inv(alignment) @ image.affine.double()
        return {**data, **aligned, "alignment": alignment}

    def _find(self, fixed: MetaTensor, moving: MetaTensor) -> torch.Tensor:
        alignment = torch.eye(4, dtype=torch.float64)
        if self.mode == "centers":
            alignment[:3, 3] = _center(moving) - _center(fixed)
        elif self.mode == "affine" and not any(image.min() == image.max() for image in (fixed, moving)):
            alignment = find_affine(fixed, moving)
        return alignment


def find_affine(fixed: MetaTensor, moving: MetaTensor) -> torch.Tensor:
    """Register two volumes by an affine map with SimpleITK: rigid, then 12 degrees of freedom, coarse to fine.

    The measure is mutual information (Mattes et al. 2003), so that the contrasts may differ. The rigid stage starts
    from the scanner coordinates, and from the two best of 125 rotations with aligned centres of mass; the best result
    continues. It finds rotations up to about 40 degrees about each axis, but not mirrored or lying heads. It runs on
    one thread with fixed samples, so that the same files give the same map.

    Args:
        fixed: shape (1, X, Y, Z), with its affine (voxel to RAS millimetres) and the name of its file in
            ``meta["filename_or_obj"]``.
        moving: the same for the moving image, on any grid.

    Returns:
        the map from the fixed to the moving world (pull-back), RAS millimetres, shape (4, 4), float64.

    Raises:
        InputError: when a volume is too thin or constant, the registration fails, or its result cannot be right.
    """
    if not HAS_SIMPLEITK:
        raise InputError("an affine alignment needs SimpleITK, which is not installed: pip install SimpleITK.")
    names = _names(fixed, moving)
    if min(*fixed.shape[1:], *moving.shape[1:]) < 4:
        raise InputError(
            f"{names} have the shapes {tuple(fixed.shape[1:])} and {tuple(moving.shape[1:])}: "
            "expected at least 4 voxels along every axis for an affine alignment."
        )
    if any(image.min() == image.max() for image in (fixed, moving)):
        raise InputError(f"{names}: one of them is constant: expected images for an affine alignment.")
    try:
        with one_itk_thread():
            alignment = _register(fixed, moving)
    except RuntimeError as error:  # SimpleITK writes many lines, the last one "ITK ERROR: Class(0x123): reason. More."
        reason = str(error).strip().splitlines()[-1].rpartition("): ")[2].partition(". ")[0]
        raise InputError(f"{names} could not be aligned by an affine map ({reason}).") from error
    change = float(torch.linalg.det(alignment[:3, :3]))
    if not VOLUME_CHANGE[0] < change < VOLUME_CHANGE[1] or _share_inside(fixed, moving, alignment) == 0:
        raise InputError(
            f"{names} could not be aligned by an affine map: found one that changes volumes {change:.3g} times, "
            f"expected {VOLUME_CHANGE[0]:g} to {VOLUME_CHANGE[1]:g} times and a common part."
        )
    return alignment


def _register(fixed_image: MetaTensor, moving_image: MetaTensor) -> torch.Tensor:
    """Run the stages of :func:`find_affine`."""
    fixed, moving = _for_matching(fixed_image), _for_matching(moving_image)
    volume = np.prod(fixed.GetSpacing()) * fixed.GetNumberOfPixels()
    spacing = max(min(fixed.GetSpacing()), (volume / FINEST_VOXELS) ** (1 / 3))  # of the last stage, in mm
    levels = [(_coarsen(fixed, spacing * f), _coarsen(moving, spacing * f)) for f in (4, 2, 1)]
    levels = [level for level in levels if level[0].GetNumberOfPixels() >= COARSEST_VOXELS] or levels[-1:]
    transform = _rigid(*levels[0], lambda start: _share_inside(fixed_image, moving_image, _to_matrix(start)))
    for level in levels:
        _improve(*level, transform)
    return _to_matrix(transform)


def _rigid(fixed: Any, moving: Any, share: Callable[[Any], float]) -> Any:
    """Return the best of several rigid registrations, as an affine transform about the same centre.

    Args:
        fixed: a SimpleITK image.
        moving: a SimpleITK image.
        share: gives the share of the fixed image that a transform maps into the moving image.
    """
    middle = [(n - 1) / 2 for n in fixed.GetSize()]
    world = sitk.Euler3DTransform(fixed.TransformContinuousIndexToPhysicalPoint(middle))
    masses = sitk.CenteredTransformInitializer(fixed, moving, world, sitk.CenteredTransformInitializerFilter.MOMENTS)
    rotated = []
    for angles in product(START_ANGLES, repeat=3):
        start = sitk.Euler3DTransform(masses)
        start.SetRotation(*np.deg2rad(angles).tolist())
        rotated.append((_likeness(fixed, moving, start, share(start)), start))
    rotated.sort(key=lambda item: -item[0])
    found = []
    for start in (world, *[start for _, start in rotated[:2]]):
        try:
            _improve(fixed, moving, start)
        except RuntimeError:  # the fixed image was mapped out of the moving image
            continue
        found.append((_likeness(fixed, moving, start, share(start)), start))
    if not found:
        raise RuntimeError("no common part was found")
    best = max(found, key=lambda item: item[0])[1]
    affine = sitk.AffineTransform(3)
    affine.SetCenter(best.GetCenter())
    affine.SetMatrix(best.GetMatrix())
    affine.SetTranslation(best.GetTranslation())
    return affine


def _likeness(fixed: Any, moving: Any, transform: Any, share: float) -> float:
    """Mutual information in nats, times the common part, since a few common voxels are often similar by chance."""
    if share < 0.05:
        return 0.0
    method = _metric(fixed)
    method.SetInitialTransform(transform)
    return -share * method.MetricEvaluate(fixed, moving)


def _metric(fixed: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    share = SAMPLES / fixed.GetNumberOfPixels()
    if share < 1:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(share, 1)  # seed
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _improve(fixed: Any, moving: Any, transform: Any) -> None:
    """Optimise a transform in place."""
    method = _metric(fixed)
    # the line search converges for brains, where steps of fixed length diverge
    method.SetOptimizerAsConjugateGradientLineSearch(
        learningRate=1.0,
        numberOfIterations=50,
        convergenceMinimumValue=1e-4,
        convergenceWindowSize=4,
        lineSearchEpsilon=0.1,
        estimateLearningRate=method.EachIteration,
        maximumStepSizeInPhysicalUnits=max(fixed.GetSpacing()) / 2,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)


def _coarsen(image: Any, spacing: float) -> Any:
    """Average blocks of voxels, so that the spacing along every axis becomes about this many mm."""
    factors = [max(1, min(round(spacing / s), n // 4)) for s, n in zip(image.GetSpacing(), image.GetSize())]
    return sitk.BinShrink(image, factors)


@contextmanager
def one_itk_thread() -> Iterator[None]:
    """Run SimpleITK on one thread, because sums over several threads differ in their last digits from run to run."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def to_itk(image: MetaTensor) -> Any:
    """Convert an image of shape (1, X, Y, Z) with an affine in RAS to a SimpleITK image (LPS), float32."""
    result = sitk.GetImageFromArray(np.ascontiguousarray(image.as_tensor()[0].cpu().numpy().T, dtype=np.float32))
    place_in_itk(result, image.affine.double().numpy())
    return result


def place_in_itk(image: Any, affine: np.ndarray) -> None:
    """Give a SimpleITK image in 2D or 3D the place of an affine from voxels to RAS millimetres, shape (4, 4)."""
    dims = image.GetDimension()
    linear, origin = (FLIP @ affine)[:dims, :dims], (FLIP @ affine)[:dims, 3]
    spacing = np.linalg.norm(linear, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection((linear / spacing).flatten().tolist())


def _for_matching(image: MetaTensor) -> Any:
    """Convert to a SimpleITK image whose values start at 0, with the brightest 0.5 % of the object clipped, and its
    padding."""
    values = image.as_tensor().cpu().float().clamp(min=tissue_floor(image))
    values = values - values.min()
    brightest = np.percentile(values[values > 0].numpy(), 99.5)
    return to_itk(MetaTensor(values.clamp(max=float(brightest)), affine=image.affine))


def _to_matrix(transform: Any) -> torch.Tensor:
    """Convert a SimpleITK affine transform (LPS, about a centre) to a 4x4 matrix in RAS."""
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    center = np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = center + np.array(transform.GetTranslation()) - linear @ center
    return torch.from_numpy(FLIP @ matrix @ FLIP)


def _names(fixed: MetaTensor, moving: MetaTensor) -> str:
    return f"fixed: {fixed.meta['filename_or_obj']} and moving: {moving.meta['filename_or_obj']}"


def grid_corners(image: MetaTensor) -> torch.Tensor:
    """Return the outer corners of the voxel grid in homogeneous voxel coordinates, shape (4, 8)."""
    ranges = [torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in image.shape[1:]]
    points = torch.stack(torch.meshgrid(*ranges, indexing="ij")).flatten(1)
    return torch.cat([points, torch.ones(1, points.shape[1], dtype=torch.float64)])


def _center(image: MetaTensor) -> torch.Tensor:
    return (image.affine.double() @ grid_corners(image))[:3].mean(1)


def _extent(image: MetaTensor) -> str:
    world = (image.affine.double() @ grid_corners(image))[:3].numpy()
    return " x ".join(f"{low:.0f}..{high:.0f}" for low, high in zip(world.min(1), world.max(1))) + " mm (R, A, S)"


def _share_inside(fixed: MetaTensor, moving: MetaTensor, alignment: torch.Tensor) -> float:
    """Return the share of the fixed image that an alignment maps into the moving image, sampled at 16^3 points."""
    fractions = [(np.arange(16) + 0.5) / 16 * n - 0.5 for n in fixed.shape[1:]]
    points = np.stack(np.meshgrid(*fractions, indexing="ij")).reshape(3, -1)
    points = np.concatenate([points, np.ones((1, points.shape[1]))])
    found = torch.linalg.solve(moving.affine.double(), alignment @ fixed.affine.double()).numpy() @ points
    size = np.array(moving.shape[1:])[:, None]
    return float(((found[:3] >= -0.5) & (found[:3] <= size - 0.5)).all(0).mean())
