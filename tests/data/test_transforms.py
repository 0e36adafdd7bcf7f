"""Checks between the files of a pair, and the alignment before the network."""

import numpy as np
import pytest
import torch

from scripts.data import AlignWorldsd, LoadPaird
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


def test_world_alignment_changes_nothing(save):
    data = LoadPaird(3)(pair(save, shifted(3), shifted(5)))
    aligned = AlignWorldsd("world")(data)
    assert torch.equal(aligned["alignment"], torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(aligned["moving"].affine, data["moving"].affine)


def test_center_alignment_maps_centre_to_centre(save):
    data = LoadPaird(3)(pair(save, shifted(3), shifted(500, -40, 7, spacing=(2, 1, 1))))
    aligned = AlignWorldsd("centers")(data)
    # centres: 3 + 4.5 = 7.5 and 500 + 9 = 509 along x
    assert aligned["alignment"][:3, 3].tolist() == [501.5, -40.0, 7.0]
    centre = aligned["moving"].affine @ torch.tensor([4.5, 4.5, 4.5, 1], dtype=torch.float64)
    assert centre[:3].tolist() == [7.5, 4.5, 4.5]
    assert data["moving"].affine[0, 3] == 500, "the image as read must keep its affine"


def test_no_overlap_in_world_space(save):
    data = LoadPaird(3)(pair(save, shifted(0), shifted(100)))
    with pytest.raises(InputError, match=r"do not overlap in world space: found -0..10 x .* and 100..110 x"):
        AlignWorldsd("world")(data)
    with pytest.raises(InputError, match="unknown alignment 'center': expected world or centers"):
        AlignWorldsd("center")
