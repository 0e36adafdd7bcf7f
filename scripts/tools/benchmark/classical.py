"""Registration with classical tools: from two images to a displacement.

Each function takes the fixed and the moving image, arrays of the same shape (X, Y) or (X, Y, Z) in [0, 1], and returns
the ddf in voxels of that grid, (2, X, Y) or (3, X, Y, Z), pull-back: warped(x) = moving(x + ddf(x)). The tools get a
grid with unit spacing at the origin, so that a voxel is their millimetre and i, j, k are their x, y, z.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from ...images.affine import one_itk_thread

__all__ = ["bspline", "demons", "greedy", "syn", "unregistered"]

SHRINK_FACTORS = (4, 2, 1)  # for the three levels, coarse to fine


def unregistered(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Return no displacement: the state after preprocessing."""
    return np.zeros((fixed.ndim, *fixed.shape), dtype=np.float32)


def greedy(fixed: np.ndarray, moving: np.ndarray, options: str) -> np.ndarray:
    """Greedy diffeomorphic registration (Yushkevich et al., https://greedy.readthedocs.io), PyPI picsl-greedy.

    Args:
        fixed: see above.
        moving: see above.
        options: command-line options, with ``-s`` in ``vox``. The warp is not rounded to 0.1 (``-wp 0``).
    """
    from picsl_greedy import Greedy2D, Greedy3D

    tool = Greedy2D() if fixed.ndim == 2 else Greedy3D()
    command = f"-i fixed moving -o warp {options} -wp 0 -threads 1 -V 0"
    tool.execute(command, fixed=_to_itk(fixed), moving=_to_itk(moving), warp=None)
    return _from_itk(tool["warp"])


def demons(
    fixed: np.ndarray, moving: np.ndarray, sigma: float, iterations: Sequence[int], match_histograms: bool = False
) -> np.ndarray:
    """Diffeomorphic demons (Vercauteren et al., NeuroImage 2009) of SimpleITK, on three levels.

    Args:
        fixed: see above.
        moving: see above.
        sigma: standard deviation of the Gaussian that smooths the displacement after every iteration, in voxels of the
            level.
        iterations: number of iterations on each level, coarse to fine.
        match_histograms: first match the grey values of the moving image to those of the fixed image.
    """
    with one_itk_thread():
        target, source = _to_itk(fixed), _to_itk(moving)
        if match_histograms:
            source = sitk.HistogramMatching(source, target, numberOfHistogramLevels=256, numberOfMatchPoints=15)
        field = sitk.Image(target.GetSize(), sitk.sitkVectorFloat64, fixed.ndim)
        for factor, count in zip(SHRINK_FACTORS, iterations):
            level = _shrink(target, factor)
            tool = sitk.DiffeomorphicDemonsRegistrationFilter()
            tool.SetNumberOfIterations(count)
            tool.SetSmoothDisplacementField(True)
            tool.SetStandardDeviations(sigma)
            field = tool.Execute(level, _shrink(source, factor), _resample_field(field, level))
    return _from_itk(field)


def bspline(fixed: np.ndarray, moving: np.ndarray, spacing: float, iterations: int) -> np.ndarray:
    """Cubic B-splines (Rueckert et al., IEEE TMI 1999) of SimpleITK, correlation, L-BFGS, on three levels.

    Args:
        fixed: see above.
        moving: see above.
        spacing: approximate spacing of the control points on the finest level, in voxels; it doubles with each coarser
            level.
        iterations: largest number of iterations on each level.
    """
    with one_itk_thread():
        target, source = _to_itk(fixed), _to_itk(moving)
        coarsest = [max(1, round(size / (spacing * SHRINK_FACTORS[0]))) for size in fixed.shape]
        tool = sitk.ImageRegistrationMethod()
        tool.SetMetricAsCorrelation()
        tool.SetInterpolator(sitk.sitkLinear)
        # LBFGSB cannot refine the control points
        tool.SetOptimizerAsLBFGS2(numberOfIterations=iterations)
        tool.SetShrinkFactorsPerLevel(SHRINK_FACTORS)
        tool.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0 for factor in SHRINK_FACTORS])
        transform = sitk.BSplineTransformInitializer(target, coarsest)
        scales = [SHRINK_FACTORS[0] // factor for factor in SHRINK_FACTORS]
        tool.SetInitialTransformAsBSpline(transform, inPlace=False, scaleFactors=scales)
        found = tool.Execute(target, source)
        return _from_itk(sitk.TransformToDisplacementField(found, sitk.sitkVectorFloat64, target.GetSize()))


def syn(fixed: np.ndarray, moving: np.ndarray, radius: int, iterations: Sequence[int]) -> np.ndarray:
    """Symmetric normalisation (Avants et al., Medical Image Analysis 2008) of ANTs, PyPI antspyx, local correlation.

    Args:
        fixed: see above.
        moving: see above.
        radius: radius of the window of the correlation, in voxels.
        iterations: largest number of iterations on each level, coarse to fine.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # read when ANTs' ITK runs for the first time
    import ants

    with tempfile.TemporaryDirectory() as folder:
        result = ants.registration(
            ants.from_numpy(fixed),
            ants.from_numpy(moving),
            type_of_transform="SyNOnly",
            initial_transform="Identity",
            syn_metric="CC",
            syn_sampling=radius,
            reg_iterations=tuple(iterations),
            outprefix=f"{folder}/",
        )
        # the transforms are the warp and the identity
        return np.moveaxis(ants.image_read(result["fwdtransforms"][0]).numpy(), -1, 0)


def _to_itk(array: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(np.ascontiguousarray(array.T, dtype=np.float32))


def _from_itk(field: sitk.Image) -> np.ndarray:
    """Convert to (d, *spatial): ITK's arrays have reversed axes, with the components x, y, z last."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(field).T, dtype=np.float32)


def _shrink(image: sitk.Image, factor: int) -> sitk.Image:
    if factor == 1:
        return image
    smooth = sitk.DiscreteGaussian(image, variance=[(factor / 2) ** 2] * image.GetDimension())
    return sitk.Shrink(smooth, [factor] * image.GetDimension())


def _resample_field(field: sitk.Image, level: sitk.Image) -> Any:
    """Resample a displacement to the grid of another level; it is in world units, so its values stay the same."""
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(level)
    resampler.SetUseNearestNeighborExtrapolator(True)
    return resampler.Execute(field)
