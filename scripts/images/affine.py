"""The affine registration of two volumes before the network, from any orientation of the moving image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import optional_import

from ..support.errors import InputError
from ..support.notices import image_name, warn
from .frame import FLIP, place_in_itk, sample_points, share_inside
from .intensities import tissue_floor

__all__ = ["find_affine", "is_aligned", "one_itk_thread", "to_itk"]

sitk, HAS_SIMPLEITK = optional_import("SimpleITK")

FINEST_VOXELS = 1e6  # voxels of the fixed image in the last stage of the affine registration
COARSEST_VOXELS = 4e3  # stages with fewer voxels are left out
START_ANGLES = (-40, -20, 0, 20, 40)  # degrees about each axis
SAMPLES = 5e4  # voxels that a stage samples
SMALLEST_SHARE = 0.05  # of the fixed image in the moving image; less is often similar by chance
VOLUME_CHANGE = (0.2, 5.0)  # an affine map that changes the volume more than this cannot be right
TURNED = 1.15  # times as alike must images be in another orientation; brains are 1.4 times as alike in the right one
MIRRORED = 1.02  # the same for their mirror images, over two stages
TILTS = (-20, 20)  # degrees, of the starts that must not make two aligned images more alike
NEAR = 5.0  # mm on average: what two images that are aligned may still move


def find_affine(fixed: MetaTensor, moving: MetaTensor) -> torch.Tensor:
    """Register two volumes by an affine map with SimpleITK: rigid, then 12 degrees of freedom, coarse to fine.

    The measure is mutual information (Mattes et al. 2003), so that the contrasts may differ. The rigid stage starts
    from the scanner coordinates, from the four best of 125 rotations with aligned centres of mass, and from the best of
    the 23 other orientations of the axes, for lying or upside-down heads and wrong headers. A moving image in another
    orientation is turned, with a warning. It is only a warning where the moving image is more alike when it is mirrored
    from left to right, since two sides of a body resemble each other, and where the result is hardly better than
    another orientation. All runs on one thread with fixed samples, so that the same files give the same map.

    Args:
        fixed: shape (1, X, Y, Z), with its affine (voxel to RAS millimetres) and the name of its file in
            ``meta["filename_or_obj"]``.
        moving: the same for the moving image, on any grid.

    Returns:
        the map from the fixed to the moving world (pull-back), RAS millimetres, shape (4, 4), float64.

    Raises:
        InputError: when a volume is too thin or constant, the registration fails, or its result cannot be right.
    """
    names = f"fixed: {image_name(fixed)} and moving: {image_name(moving)}"
    if not HAS_SIMPLEITK:
        raise InputError("an affine alignment needs SimpleITK, which is not installed: pip install SimpleITK.")
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
    change = float(torch.linalg.det(alignment[:3, :3]).abs())
    if not VOLUME_CHANGE[0] < change < VOLUME_CHANGE[1] or share_inside(sample_points(fixed), moving, alignment) == 0:
        raise InputError(
            f"{names} could not be aligned by an affine map: found one that changes volumes {change:.3g} times, "
            f"expected {VOLUME_CHANGE[0]:g} to {VOLUME_CHANGE[1]:g} times and a common part."
        )
    return alignment


def is_aligned(fixed: MetaTensor, moving: MetaTensor) -> bool:
    """Return whether two volumes lie so close to each other in world space that a network can do the rest.

    They do if an affine registration from the scanner coordinates on coarse voxels moves them by less than 5 mm on
    average, and no other start of :func:`find_affine` makes them more alike. Volumes that cannot be registered count as
    aligned.

    Args:
        fixed: shape (1, X, Y, Z), with its affine.
        moving: the same for the moving image.
    """
    if not HAS_SIMPLEITK or min(*fixed.shape[1:], *moving.shape[1:]) < 4:
        return True
    with one_itk_thread():
        stage = _stages(fixed, moving)[0]
        transform = stage.affine(stage.world())
        likeness = stage.improve(transform)
        if _mean_motion(fixed, _to_matrix(transform)) >= NEAR:
            return False
        others = (*stage.rotations([(a, 0, 0) for a in TILTS] + [(0, a, 0) for a in TILTS]), *stage.orientations())
        return all(stage.likeness(other) <= likeness for other in others)


def _mean_motion(fixed: MetaTensor, matrix: torch.Tensor) -> float:
    """Return how far a map moves the voxels above the minimum of an image on average, in mm."""
    step = 3  # every third voxel is enough
    voxels = step * torch.nonzero(fixed.as_tensor()[0][::step, ::step, ::step] > fixed.min()).double()
    points = fixed.affine.double() @ torch.cat([voxels, torch.ones(len(voxels), 1)], 1).double().T
    return float(((matrix - torch.eye(4)) @ points)[:3].norm(dim=0).mean())


def _register(fixed: MetaTensor, moving: MetaTensor) -> torch.Tensor:
    """Run the stages of :func:`find_affine`."""
    stages = _stages(fixed, moving)
    transform, turned = _first(stages[0])
    mirrored = stages[0].mirror(transform)
    alike, mirrored_alike = stages[0].likeness(transform), stages[0].improve(mirrored)
    for stage in stages[1:2]:
        alike, mirrored_alike = alike * stage.improve(transform), mirrored_alike * stage.improve(mirrored)
    looks_mirrored = mirrored_alike > MIRRORED * alike
    if turned and looks_mirrored:
        transform = mirrored
    for stage in stages[2:]:
        stage.improve(transform)
    if turned:
        warn(
            f"moving: {image_name(moving)} lies in another orientation than fixed: {image_name(fixed)}: the alignment "
            "turns it. Its header may be wrong: check the result, and what is left and right."
        )
    elif looks_mirrored:
        warn(
            f"moving: {image_name(moving)} looks more like fixed: {image_name(fixed)} when it is mirrored from left to "
            "right: its header may be wrong. It was not mirrored."
        )
    return _to_matrix(transform)


def _first(stage: _Stage) -> tuple[Any, bool]:
    """Return the best of several starts after the first stage, and whether it turns the moving image."""
    upright, likeness = stage.best_of(
        [stage.world(), *stage.most_alike(stage.rotations(product(START_ANGLES, repeat=3)), 4)]
    )
    turned, turned_likeness = stage.best_of(stage.most_alike(stage.orientations(), 1))
    is_turned = turned_likeness > TURNED * likeness
    if not is_turned and likeness < TURNED * turned_likeness:
        fixed, moving = (image_name(image) for image in stage.images)
        warn(
            f"the affine alignment of moving: {moving} to fixed: {fixed} is not to be trusted: they are nearly as much "
            f"alike in another orientation (mutual information {turned_likeness:.2f} against {likeness:.2f})."
        )
    return (turned if is_turned else upright), is_turned


@dataclass(frozen=True)
class _Stage:
    """Two volumes on voxels of one size, and what the registration of a stage needs.

    Args:
        fixed: a SimpleITK image.
        moving: a SimpleITK image.
        images: the MetaTensors that these were made of.
        points: points of the object in the fixed image, see :func:`~scripts.images.frame.sample_points`.
    """

    fixed: Any
    moving: Any
    images: tuple[MetaTensor, MetaTensor]
    points: torch.Tensor

    def world(self) -> Any:
        """The scanner coordinates, as a rigid transform about the middle of the fixed image."""
        middle = [(n - 1) / 2 for n in self.fixed.GetSize()]
        return sitk.Euler3DTransform(self.fixed.TransformContinuousIndexToPhysicalPoint(middle))

    def rotations(self, angles: Iterable[Sequence[float]]) -> list[Any]:
        """The rotations by some angles in degrees about the three axes, with aligned centres of mass."""
        return [self._turned(_rotation(*turn)) for turn in angles]

    def orientations(self) -> list[Any]:
        """The 23 rotations of a cube that are not the identity, with aligned centres of mass."""
        matrices = [
            np.diag(signs)[:, order] for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)
        ]
        proper = [matrix for matrix in matrices if np.linalg.det(matrix) > 0]
        return [self._turned(matrix) for matrix in proper if not np.array_equal(matrix, np.eye(3))]

    def mirror(self, transform: Any) -> Any:
        """An affine transform after a reflection from left to right about the fixed image's centre of mass."""
        center = self._centers_of_mass.GetCenter()
        result = sitk.AffineTransform(3)
        result.SetCenter(center)
        result.SetMatrix((np.reshape(transform.GetMatrix(), (3, 3)) @ np.diag([-1.0, 1.0, 1.0])).ravel().tolist())
        result.SetTranslation(np.subtract(transform.TransformPoint(center), center).tolist())
        return result

    def affine(self, rigid: Any) -> Any:
        """A rigid transform as an affine one about the same centre."""
        result = sitk.AffineTransform(3)
        result.SetCenter(rigid.GetCenter())
        result.SetMatrix(rigid.GetMatrix())
        result.SetTranslation(rigid.GetTranslation())
        return result

    def most_alike(self, starts: list[Any], number: int) -> list[Any]:
        """The starts that make the images most alike."""
        return sorted(starts, key=self.likeness, reverse=True)[:number]

    def best_of(self, starts: list[Any]) -> tuple[Any, float]:
        """Optimise rigid starts, first in place, then as affine transforms; return the best, and how alike it makes."""
        found = []
        for start in starts:
            self.improve(start)
            affine = self.affine(start)
            found.append((self.improve(affine), affine))
        likeness, best = max(found, key=lambda item: item[0])
        return best, likeness

    def likeness(self, transform: Any) -> float:
        """Mutual information in nats, times the share of the object that is common: few voxels are alike by chance."""
        share = share_inside(self.points, self.images[1], _to_matrix(transform))
        if share < SMALLEST_SHARE:
            return 0.0
        method = self._metric()
        method.SetMetricUseFixedImageGradientFilter(False)  # no gradient is needed
        method.SetMetricUseMovingImageGradientFilter(False)
        method.SetInitialTransform(transform)
        try:
            return -share * method.MetricEvaluate(self.fixed, self.moving)
        except RuntimeError:  # no voxel that is sampled lies in the moving image
            return 0.0

    def improve(self, transform: Any) -> float:
        """Optimise a transform in place where that makes the images more alike, and return how alike it makes them."""
        before, parameters = self.likeness(transform), transform.GetParameters()
        if before > 0:
            method = self._metric()
            # the line search converges for brains, where steps of fixed length diverge, but may go too far
            method.SetOptimizerAsConjugateGradientLineSearch(
                learningRate=1.0,
                numberOfIterations=50,
                convergenceMinimumValue=1e-4,
                convergenceWindowSize=4,
                lineSearchEpsilon=0.1,
                estimateLearningRate=method.EachIteration,
                maximumStepSizeInPhysicalUnits=max(self.fixed.GetSpacing()) / 2,
            )
            method.SetOptimizerScalesFromPhysicalShift()
            method.SetInitialTransform(transform, inPlace=True)
            try:
                method.Execute(self.fixed, self.moving)
                after = self.likeness(transform)
            except RuntimeError:  # the fixed image was mapped out of the moving image
                after = 0.0
            if after > before:
                return after
        transform.SetParameters(parameters)
        return before

    @cached_property
    def _centers_of_mass(self) -> Any:
        """The scanner coordinates with the centres of mass on each other, about that of the fixed image."""
        moments = sitk.CenteredTransformInitializerFilter.MOMENTS
        return sitk.Euler3DTransform(sitk.CenteredTransformInitializer(self.fixed, self.moving, self.world(), moments))

    def _turned(self, rotation: np.ndarray) -> Any:
        start = sitk.Euler3DTransform(self._centers_of_mass)
        start.SetMatrix(rotation.ravel().tolist(), 1e-6)
        return start

    def _metric(self) -> Any:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
        share = SAMPLES / self.fixed.GetNumberOfPixels()
        if share < 1:
            method.SetMetricSamplingStrategy(method.REGULAR)
            method.SetMetricSamplingPercentage(share, 1)  # seed
        method.SetInterpolator(sitk.sitkLinear)
        return method


def _stages(fixed: MetaTensor, moving: MetaTensor) -> list[_Stage]:
    """Return the stages, coarse to fine."""
    first, second = _object_of(_for_matching(fixed)), _for_matching(moving)
    points = sample_points(fixed, foreground=True)
    volume = np.prod(first.GetSpacing()) * first.GetNumberOfPixels()
    spacing = max(min(first.GetSpacing()), (volume / FINEST_VOXELS) ** (1 / 3))  # of the last stage, in mm
    stages = [
        _Stage(_coarsen(first, spacing * f), _coarsen(second, spacing * f), (fixed, moving), points) for f in (4, 2, 1)
    ]
    return [stage for stage in stages if stage.fixed.GetNumberOfPixels() >= COARSEST_VOXELS] or stages[-1:]


def _object_of(image: Any) -> Any:
    """Cut an image to the box of everything above 0, since much common padding hides what is alike."""
    inside, box = sitk.GetArrayViewFromImage(image).T > 0, []
    for axis in range(3):
        places = np.flatnonzero(inside.any(tuple({0, 1, 2} - {axis})))
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return image[tuple(box)]


def _rotation(x: float, y: float, z: float) -> np.ndarray:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.deg2rad((x, y, z)).tolist())
    return np.reshape(transform.GetMatrix(), (3, 3))


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


def _for_matching(image: MetaTensor) -> Any:
    """Convert to a SimpleITK image whose values start at 0, with the brightest 0.5 % of the object clipped, and its
    padding."""
    values = image.as_tensor().cpu().float().clamp(min=tissue_floor(image))
    values = values - values.min()
    brightest = np.percentile(values[values > 0].numpy(), 99.5)
    return to_itk(MetaTensor(values.clamp(max=float(brightest)), affine=image.affine))


def _to_matrix(transform: Any) -> torch.Tensor:
    """Convert a SimpleITK transform with a matrix (LPS, about a centre) to a 4x4 matrix in RAS."""
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    center = np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = center + np.array(transform.GetTranslation()) - linear @ center
    return torch.from_numpy(FLIP @ matrix @ FLIP)
