"""Checks between the files of a pair."""

import numpy as np
import pytest

from scripts.data import LoadPaird
from scripts.errors import InputError

from ..conftest import blobs


def shifted(x, y=0.0, z=0.0, spacing=(1, 1, 1)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (x, y, z)
    return affine


def pair(save, fixed_affine=None, moving_affine=None, shape=(10, 10, 10), **labels):
    files = {
        "fixed": save("f.nii", blobs(shape), fixed_affine),
        "moving": save("m.nii", blobs(shape, 1), moving_affine),
    }
    return {**files, **labels}


def test_a_label_of_another_grid_than_its_image(save):
    label = save("l.nii", np.ones((10, 10, 9), np.uint8))
    with pytest.raises(InputError, match=r"label_moving: .*l.nii has shape \(10, 10, 9\): expected \(10, 10, 10\)"):
        LoadPaird(3)(pair(save, label_moving=label))
    label = save("l.nii", np.ones((10, 10, 10), np.uint8), shifted(2))
    with pytest.raises(InputError, match=r"l.nii lies up to 2.00 mm off the grid of .*f.nii"):
        LoadPaird(3)(pair(save, label_fixed=label))


def test_slices_must_be_last_for_a_2d_model(save):
    with pytest.raises(InputError, match=r"has spacing \[8.0, 1.0, 1.0\] mm: expected a stack with its slices along"):
        LoadPaird(2)(pair(save, shifted(0, spacing=(8, 1, 1))))
    LoadPaird(2)(pair(save, shifted(0, spacing=(1, 1, 8)), shifted(0, spacing=(1, 1, 8))))
