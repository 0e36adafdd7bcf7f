"""Faults that are planted into the moving image of a pair, to see whether a verdict notices them.

Each fault maps an image and its label map, on one grid, to a faulty image and the label map that fits it. What is
random comes from the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import nibabel as nib
import numpy as np
from scipy.ndimage import distance_transform_edt

__all__ = ["FAULTS", "Fault", "fit", "replace_organ"]

Pair = tuple[nib.Nifti1Image, nib.Nifti1Image]
Fault = Callable[[nib.Nifti1Image, nib.Nifti1Image, np.random.Generator, int], Pair]
Change = Callable[[np.ndarray], np.ndarray]

GAP, SCALP = 8.0, 16.0  # mm: where a planted skull ends, and the scalp around it


def mirrored(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int) -> Pair:
    """Flip the voxels along one axis of the images that are registered, the header as it was."""
    axis = int(random.integers(spatial_dims))
    return _both(image, label, lambda values: np.flip(values, axis))


def mirrored_sides(
    image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int
) -> Pair:
    """Flip from left to right."""
    axis = int(np.abs(image.affine[0, :3]).argmax())
    return _both(image, label, lambda values: np.flip(values, axis))


def turned(
    image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int, quarters: int = 1
) -> Pair:
    """Turn the voxels by quarters of a circle about their middle, the header as it was."""
    plane = [(0, 1), (0, 2), (1, 2)][int(random.integers(3)) if spatial_dims == 3 else 0]
    turns = quarters * int(random.choice((-1, 1)))
    return _both(image, label, lambda values: fit(np.rot90(values, turns, plane), values.shape))


def cropped(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int) -> Pair:
    """Keep one half of the field of view, where it is."""
    axis = int(random.integers(spatial_dims))
    half = image.shape[axis] // 2
    keep = [slice(None)] * 3
    keep[axis] = slice(half, None) if random.random() < 0.5 else slice(half)
    return image.slicer[tuple(keep)], label.slicer[tuple(keep)]


def shifted(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int) -> Pair:
    """Move the voxels by half the field of view, with zeros behind them."""
    axis = int(random.integers(spatial_dims))
    step = image.shape[axis] // 2 * int(random.choice((-1, 1)))

    def move(values: np.ndarray) -> np.ndarray:
        result = np.roll(values, step, axis)
        index = [slice(None)] * 3
        index[axis] = slice(step) if step > 0 else slice(step, None)
        result[tuple(index)] = 0
        return result

    return _both(image, label, move)


def wrong_frame(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int) -> Pair:
    """Give the header another frame: axes in another order for a volume, an origin a third of a stack away."""
    affine = image.affine.copy()
    if spatial_dims == 3:
        affine[:, :3] = affine[:, [1, 2, 0]]
    else:
        angle = random.uniform(0, 2 * np.pi)
        affine[:3, 3] += affine[:3, 0] * image.shape[0] / 3 * np.cos(angle)
        affine[:3, 3] += affine[:3, 1] * image.shape[1] / 3 * np.sin(angle)
    return _like(image, _values(image), affine), _like(label, _ids(label), affine)


def noisy(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int) -> Pair:
    """Nothing but noise."""
    values = _values(image)
    noise = np.abs(random.standard_normal(values.shape)).astype(np.float32)
    return _like(image, noise * float(values.std())), label


def inverted(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int) -> Pair:
    """Another contrast: bright tissue becomes dark, and dark tissue bright; a black background stays."""
    values = _values(image)
    low, high = np.percentile(values, (1, 99))
    background = values <= values.min()
    result = np.clip(high + low - values, low, high) + 0.02 * (high - low)
    if background.mean() > 0.2:
        result[background] = values.min()
    return _like(image, result), label


def blank(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int) -> Pair:
    """One intensity everywhere."""
    return _like(image, np.full(image.shape, 5, np.float32)), label


def half_blank(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int) -> Pair:
    """One half of the slices is empty."""
    values = _values(image)
    half = image.shape[2] // 2
    values[..., slice(half, None) if random.random() < 0.5 else slice(half)] = 0
    return _like(image, values), label


def skull_on(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, spatial_dims: int) -> Pair:
    """A dark skull and a bright scalp around a brain that was stripped."""
    values = _values(image)
    tissue = values > 0.05 * np.percentile(values, 99)
    distance = distance_transform_edt(~tissue, sampling=image.header.get_zooms()[:3])
    level = np.percentile(values[tissue], 90)
    scalp = (distance > GAP) & (distance <= SCALP)
    values[scalp] = level * random.uniform(0.8, 1.2, int(scalp.sum()))
    rest = distance > SCALP
    values[rest] = np.abs(random.normal(0, 0.02 * level, int(rest.sum())))
    return _like(image, values), label


def replace_organ(image: nib.Nifti1Image, other: nib.Nifti1Image) -> Pair:
    """Another image, with its middle where that of the image is, and no label."""
    affine = other.affine.copy()
    middle, own = ([*((n - 1) / 2 for n in shape[:3]), 1.0] for shape in (image.shape, other.shape))
    affine[:3, 3] += (image.affine @ middle - other.affine @ own)[:3]
    return _like(other, _values(other), affine), _like(other, np.zeros(other.shape, np.int16), affine)


def fit(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Crop values, or pad them with zeros, about the middle."""
    result = np.zeros(shape, values.dtype)
    inside, there = [], []
    for old, new in zip(values.shape, shape):
        size = min(old, new)
        inside.append(slice((old - size) // 2, (old - size) // 2 + size))
        there.append(slice((new - size) // 2, (new - size) // 2 + size))
    result[tuple(there)] = values[tuple(inside)]
    return result


FAULTS: dict[str, Fault] = {
    "mirrored": mirrored,
    "turned by 90 degrees": turned,
    "turned by 180 degrees": partial(turned, quarters=2),
    "cropped to a half": cropped,
    "shifted by a half": shifted,
    "wrong frame": wrong_frame,
    "noise": noisy,
    "inverted contrast": inverted,
    "blank": blank,
    "half of the slices blank": half_blank,
}


def _both(image: nib.Nifti1Image, label: nib.Nifti1Image, change: Change) -> Pair:
    return _like(image, change(_values(image))), _like(label, change(_ids(label)))


def _values(image: nib.Nifti1Image) -> np.ndarray:
    return np.array(image.dataobj, np.float32)


def _ids(label: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(label.dataobj).astype(np.int32)


def _like(image: nib.Nifti1Image, values: np.ndarray, affine: np.ndarray | None = None) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.ascontiguousarray(values), image.affine if affine is None else affine)
