"""Where the network's grid lies in the fixed image, and what is said of the rest."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import ResizeWithPadOrCrop, Spacing

from scripts.images.field_of_view import ResampleToGridd, find_foreground
from scripts.registration import Registration
from scripts.results.measures import common_classes, dice_per_class

from ..conftest import meta


def block(shape, first, last, value=100.0):
    """A volume of zeros with a block of one value."""
    image = torch.zeros(shape)
    image[tuple(slice(a, b) for a, b in zip(first, last))] = value
    return image


def on_grid(image, spacing=(1, 1, 1), size=(16, 16, 16), spatial_dims=3):
    fixed = meta(image)
    fixed.meta["filename_or_obj"] = "fixed.nii.gz"
    return ResampleToGridd(spatial_dims, spacing, size)({"fixed": fixed})["fixed"]


def test_an_object_in_the_middle_leaves_the_grid_in_the_middle():
    grid = on_grid(block((40, 41, 16), (13, 20, 2), (27, 26, 14)))
    assert grid.affine[:3, 3].tolist() == [12, 12, 0]  # 40 // 2 - 8, 41 // 2 - 8


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("begin", "found"), [(2, 1), (28, 23)])  # windows from 0, 1 or 2, or from 22, 23 or 24 hold it
def test_the_grid_is_centred_on_an_object_that_it_would_cut(axis, begin, found):
    first, last, expected = [15] * 3, [25] * 3, [12] * 3
    first[axis], last[axis], expected[axis] = begin, begin + 10, found
    grid = on_grid(block((40, 40, 40), first, last))
    assert grid.affine[:3, 3].tolist() == expected
    assert int((grid > 0).sum()) == 1000


def test_the_grid_has_its_own_voxels():
    grid = on_grid(block((80, 40, 40), (60, 15, 15), (78, 25, 25)), spacing=(2, 1, 1))
    # planes 60 to 77 lie at 30 to 38.5 of 40 or 41 voxels: windows of 16 that hold them begin at 23, 24 (or 25)
    assert grid.affine[0].tolist() == pytest.approx([2, 0, 0, 48])


def fine_pair(moving_voxel=1.0, moved=None):
    """A random fixed image with voxels of 1 mm on the fine grid of 2 mm, and a moving one with larger voxels."""
    torch.manual_seed(0)
    data = {"fixed": meta(torch.rand(20, 21, 23)), "moving": meta(torch.rand(9, 9, 9))}
    data["moving"].affine = torch.diag(torch.tensor([moving_voxel, 1.0, 1.0, 1.0], dtype=torch.float64))
    if moved is not None:
        data["moving"].affine, data["alignment"] = torch.linalg.inv(moved) @ data["moving"].affine, moved
    grids = [ResampleToGridd(3, (2, 2, 2), (8, 12, 12), fine=fine)(data) for fine in (False, True)]
    return (*grids, data)


def test_every_second_voxel_of_a_fine_grid_is_one_of_the_grid():
    coarse, fine, _ = fine_pair()
    assert "fine" not in coarse
    assert fine["fine"] is True
    assert fine["fixed"].shape == (1, 15, 23, 23)
    torch.testing.assert_close(fine["fixed"].affine[:3, 3], coarse["fixed"].affine[:3, 3])
    torch.testing.assert_close(fine["fixed"].affine[:3, :3], coarse["fixed"].affine[:3, :3] / 2)
    torch.testing.assert_close(fine["fixed"].as_tensor()[:, ::2, ::2, ::2], coarse["fixed"].as_tensor())


@pytest.mark.parametrize(("voxel", "fine"), [(1.25, True), (1.26, False), (0.3, True)])
def test_the_grid_is_fine_where_the_voxels_of_both_images_are_at_most_five_eighths_of_its_own(voxel, fine):
    assert fine_pair(voxel)[1].get("fine", False) is fine


def test_an_alignment_does_not_change_how_fine_an_image_is():
    larger = torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))  # the moving image, twice as large
    _, fine, data = fine_pair(1.25, larger)
    assert float(data["moving"].pixdim[0]) == 2.5
    assert fine["fine"]


def test_the_grid_of_a_stack_is_never_fine():
    data = {"fixed": meta(torch.rand(20, 20, 3)), "moving": meta(torch.rand(20, 20, 3))}
    assert "fine" not in ResampleToGridd(2, (2, 2, 2), (8, 8, 3), fine=True)(data)


def test_noise_and_a_stray_voxel_do_not_move_the_grid():
    image = block((40, 40, 40), (13, 13, 13), (27, 27, 27)) + torch.rand(40, 40, 40)
    image[1, 1, 1] = 90
    assert on_grid(image).affine[:3, 3].tolist() == [12, 12, 12]


def test_without_a_clear_background_the_grid_stays_in_the_middle():
    ramp = torch.arange(40.0).view(-1, 1, 1).expand(40, 40, 40) ** 2
    assert find_foreground(ramp) is None
    assert on_grid(ramp.clone()).affine[:3, 3].tolist() == [12, 12, 12]
    stack = block((40, 40, 5), (28, 15, 1), (38, 25, 4))
    assert on_grid(stack, size=(16, 16, -1), spatial_dims=2).affine[:3, 3].tolist() == [12, 12, 0]


def test_what_lies_outside_is_said(caplog):
    on_grid(block((40, 16, 16), (10, 4, 4), (30, 12, 12), 7))
    # 16 of 20 planes fit, 2 at either end do not: from the border of the grid to the centre of the last plane 1.5 mm
    expected = "20.0% of the foreground, up to 2 mm, lie outside of the network's field of view of 16 x 16 x 16 mm"
    assert expected in caplog.text
    assert "fixed: fixed.nii.gz" in caplog.text


def test_the_grid_is_the_same_as_by_resampling_and_cropping_the_whole_image():
    image = meta(torch.from_numpy(np.random.default_rng(0).normal(size=(30, 21, 26))))
    image.affine = torch.tensor([[0, 1.5, 0, 3], [-1.2, 0, 0, 8], [0, 0, 0.9, -4], [0, 0, 0, 1]], dtype=torch.float64)
    for spacing, size in itertools.product([(1, 1.3, 0.7), (-1, -1, -1), (2, 2, 2)], [(16, 32, 17), (-1, -1, -1), 20]):
        whole = ResizeWithPadOrCrop(size, mode="edge")(Spacing(spacing)(image))
        found = ResampleToGridd(3, spacing, size)({"fixed": image})["fixed"]
        torch.testing.assert_close(found.as_tensor(), whole.as_tensor(), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.affine, whole.affine)


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ["world", "centers", "affine"])
def test_a_brain_anywhere_in_a_large_volume_is_registered_as_in_the_middle(samples, save, alignment):
    register = Registration.load("brain", alignment=alignment, spacing=[4, 4, 4], spatial_size=[48, 56, 48])
    middle, corner, other = ((30, 30),) * 3, ((60, 0), (6, 54), (0, 60)), ((0, 60), (60, 0), (30, 30))
    results = []
    for places in ((middle, middle), (corner, corner if alignment == "centers" else other)):
        files = {}
        for key, subject, widths in zip(("fixed", "moving"), (19, 20), places):
            for role, name in ((key, "t1"), (f"label_{key}", "seg")):
                image = nib.load(samples / f"brain_synthetic/synthetic_{subject}/{name}.nii.gz")
                affine = image.affine @ np.diag([2, 2, 2, 1])
                affine[:3, 3] -= affine[:3, :3] @ [low for low, _ in widths]
                files[role] = save(f"{role}.nii.gz", np.pad(np.asarray(image.dataobj)[::2, ::2, ::2], widths), affine)
        result = register(**files)
        fixed, moving = result.label_fixed.as_tensor(), result.label_moving.as_tensor()
        classes = common_classes(fixed, moving)[0]
        results.append(dice_per_class(fixed, result.label_warped.as_tensor(), classes)["mean"])
        assert not result.warnings
    assert results[1] == pytest.approx(results[0], abs=0.01)
