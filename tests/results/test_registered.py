"""A registered pair on the fixed image's own grid, by hand."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.deformation.grid import lengths_mm
from scripts.deformation.inversion import invert_ddf
from scripts.results.measures import MeasurePair
from scripts.results.registered import RegisteredPair

from ..conftest import meta, ramp

IDENTITY = torch.eye(4, dtype=torch.float64)


def read_pair(**changes):
    return {"native_fixed": meta(ramp()), "native_moving": meta(ramp()), "alignment": IDENTITY, **changes}


def registered(data, ddf):
    return RegisteredPair({}, data, ddf, 3, MeasurePair(3))


def shift(first):
    ddf = torch.zeros(3, 6, 4, 3)
    ddf[0] = first
    return ddf


def along_the_first_axis(image):
    return image[0, :, 0, 0].tolist()


def test_moving_is_sampled_through_both_affines_and_is_its_minimum_outside():
    # moving voxel = fixed voxel - 2 (its origin lies at 2 mm); the displacement adds 1.5 along the first axis
    moving, label = meta(ramp(), shift=2.0), meta((ramp() > 3).float(), shift=2.0)
    pair = registered(read_pair(native_moving=moving, label_moving=label), shift(1.5))
    assert along_the_first_axis(pair.resampled) == [1, 1, 1, 2, 3, 4]
    # fixed voxels 0..5 look at moving voxels -0.5..4.5; half a voxel outside still is the border's value
    assert along_the_first_axis(pair.warped) == [1, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert along_the_first_axis(pair.label_resampled) == [0, 0, 0, 0, 0, 1]
    for axis, index in ((0, 4), (1, 3), (2, 0)):
        assert torch.equal(pair.resampled_plane(axis, index), pair.resampled.as_tensor()[0].select(axis, index))


@pytest.mark.parametrize("fill", [-1000.0, 0.0])
def test_outside_of_the_moving_image_is_the_fill_but_labels_are_0_there(fill):
    moving, label = meta(ramp(), shift=2.0), meta(ramp(), shift=2.0)
    data = read_pair(native_moving=moving, label_moving=label)
    pair = RegisteredPair({}, data, shift(0.0), 3, MeasurePair(3), fill=fill)
    for image in (pair.resampled, pair.warped, pair.carry(moving)):
        assert along_the_first_axis(image) == [fill, fill, 1, 2, 3, 4]
    assert along_the_first_axis(pair.label_warped) == [0, 0, 1, 2, 3, 4]


def test_any_image_of_the_moving_world_is_carried_along():
    # two channels on a grid of 0.5 mm that begins at 1 mm: fixed voxel x + 1.5 is its voxel 2 (x + 0.5)
    image = MetaTensor(
        torch.stack([ramp((14, 4, 3)), -ramp((14, 4, 3))]), affine=torch.diag(torch.tensor([0.5, 1, 1, 1]))
    )
    image.affine[0, 3] = 1.0
    carried = registered(read_pair(), shift(1.5)).carry(image)
    assert carried.shape == (2, 6, 4, 3)
    assert along_the_first_axis(carried) == [2, 4, 6, 8, 10, 12]
    assert along_the_first_axis(carried[1:]) == [-2, -4, -6, -8, -10, -12]


def test_everything_lies_on_the_fixed_grid_and_has_the_name_of_its_source():
    fixed, moving = meta(ramp(), shift=7.0), meta(ramp(), shift=5.0)
    fixed.meta["filename_or_obj"], moving.meta["filename_or_obj"] = "fixed.nii", "moving.nii"
    pair = registered(read_pair(native_fixed=fixed, native_moving=moving), shift(0.0))
    torch.testing.assert_close(pair.inverse.affine, moving.affine)
    for image in (pair.ddf, pair.warped, pair.resampled, pair.jacobian):
        torch.testing.assert_close(image.affine, fixed.affine)
        assert image.shape[1:] == fixed.shape[1:]
    assert pair.warped.meta["filename_or_obj"] == "moving.nii"
    assert fixed.meta["filename_or_obj"] == "fixed.nii"
    assert pair.label_warped is pair.label_resampled is None


def test_what_was_computed_is_kept():
    pair = registered(read_pair(), shift(1.0))
    assert pair.warped is pair.warped
    assert pair.metrics is pair.metrics


@pytest.mark.parametrize("dims", [2, 3])
def test_the_jacobian_of_a_stack_is_that_of_its_slices(dims):
    # i -> 1.5 i and k -> 0.5 k: 1.5 in the plane, 0.75 in space
    ddf = torch.zeros(3, 6, 4, 3)
    ddf[0], ddf[2] = 0.5 * torch.arange(6.0).view(-1, 1, 1), -0.5 * torch.arange(3.0)
    pair = RegisteredPair({}, read_pair(), ddf, dims, MeasurePair(dims))
    assert pair.jacobian.shape == (1, 6, 4, 3)
    torch.testing.assert_close(pair.jacobian.as_tensor(), torch.full((1, 6, 4, 3), 1.5 if dims == 2 else 0.75))


def test_the_inverse_residual_is_in_millimetres():
    # u = 0.25 i: v = -u leaves -0.25 i + 0.25 (i - 0.25 i) = -i / 16 voxels at row i, of 2 mm; the tolerance is 0.5
    _, residual = invert_ddf(shift(0.25 * torch.arange(6.0).view(-1, 1, 1)), tolerance=0.5)
    assert (residual.norm(dim=0) <= 0.5).all()
    millimetres = lengths_mm(residual, meta(ramp(), spacing=2.0).affine)
    torch.testing.assert_close(millimetres[:, 1, 1], torch.arange(6.0) / 8)


def test_ids_that_no_float_can_hold_are_carried():
    label = meta(ramp())
    ids = MetaTensor(torch.where(label.as_tensor() > 3, 312782574, 312782578), affine=label.affine)
    pair = registered(read_pair(label_moving=ids), shift(1.0))
    assert set(pair.label_warped.unique().tolist()) <= {0, 312782574, 312782578}
    assert pair.label_warped.unique().numel() == 3
