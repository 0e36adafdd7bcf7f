"""Slices of one intensity do not move, or move like their neighbours, and are named."""

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts import Registration
from scripts.images.blank import FindBlankSlicesd, blank_slices, fill_slices
from scripts.registration.preprocessing import preprocess_pair

from ..conftest import blobs, meta

SHAPE = (12, 10, 8)


def image_with(*blank, axis=2, value=5.0, seed=0):
    """A smooth random volume with slices of one intensity."""
    values = torch.from_numpy(blobs(SHAPE, seed).astype(np.float32))
    values.movedim(axis, 0)[list(blank)] = value
    return meta(values)


def test_blank_slices_are_found_along_each_axis():
    for axis in range(3):
        image = image_with(0, 3, 4, axis=axis)
        assert blank_slices(image, axis, outer=True) == [0, 3, 4]
        assert blank_slices(image, axis, outer=False) == [3, 4]
        assert blank_slices(image, (axis + 1) % 3, outer=True) == []
    assert blank_slices(meta(torch.full(SHAPE, 5.0)), 2, outer=True) == []


def test_up_to_three_blank_slices_are_interpolated():
    ramp = torch.arange(8.0).expand(SHAPE).clone()  # along the slices
    holed = ramp.clone()
    holed[..., [2, 4, 5]] = 0
    torch.testing.assert_close(fill_slices(holed[None], 2, [2, 4, 5]), ramp[None])
    holed[..., 2:6] = 0
    assert torch.equal(fill_slices(holed[None], 2, [2, 3, 4, 5]), holed[None])


def test_those_of_a_stack_are_marked_and_those_of_a_volume_are_filled(caplog):
    fixed, moving = image_with(0, 3), image_with()
    fixed.meta["filename_or_obj"] = "stack.nii.gz"
    data = {"fixed": fixed, "moving": moving}
    stack, volume = FindBlankSlicesd(2)(data), FindBlankSlicesd(3)(data)
    assert stack["blank_fixed"].mean((0, 1, 2)).tolist() == [1, 0, 0, 1, 0, 0, 0, 0]
    assert "blank_moving" not in stack
    assert torch.equal(stack["fixed"], fixed)
    torch.testing.assert_close(volume["fixed"][..., 3], (fixed[..., 2] + fixed[..., 4]) / 2)
    assert torch.equal(volume["fixed"][..., 0], fixed[..., 0])
    assert set(volume) == {"fixed", "moving"}
    assert [record.getMessage() for record in caplog.records] == [
        "fixed: stack.nii.gz is blank in some slices, which do not move: k = 0, k = 3.",
        "fixed: stack.nii.gz is blank in some slices, where the motion is that of their neighbours: k = 3.",
    ]


def test_a_blank_slice_between_those_of_the_grid_blanks_both_of_them(save):
    """The moving slices lie .4 of a slice higher: fixed slice k shows .4 of moving slice k - 1 and .6 of k."""
    affine = np.diag([1.0, 1, 8, 1])
    files = {"fixed": save("fixed.nii.gz", image_with()[0].numpy(), affine)}
    affine[2, 3] = 0.4 * 8
    files["moving"] = save("moving.nii.gz", image_with(3, seed=1)[0].numpy(), affine)
    image = preprocess_pair(2, (1, 1, -1), (12, 10, -1))(files)["image"]
    assert image.amax((1, 2)).gt(0).tolist() == [[True] * 3 + [False] * 2 + [True] * 3, [True] * 8]


@pytest.mark.parametrize("blank", ["fixed", "moving"])
@pytest.mark.parametrize("value", [0, 100])
def test_a_blank_slice_of_a_heart_does_not_move(samples, blank, value):
    path = samples / "sunnybrook" / "SC-N-10" / "SC-N-10"
    images = {"fixed": nib.load(f"{path}_ED.nii.gz"), "moving": nib.load(f"{path}_ES.nii.gz")}
    register = Registration.load("cardiac")
    label = f"{path}_ES_gt.nii.gz"
    whole = register(**images, label_moving=label)
    data = np.array(images[blank].dataobj)
    data[..., 3] = value
    images[blank] = nib.Nifti1Image(data, images[blank].affine)
    result = register(**images, label_moving=label)
    assert whole.ddf[..., 3].abs().max() > 2
    assert result.ddf[..., 3].abs().max() < 1e-4
    assert torch.equal(result.label_warped[..., 3], result.label_moving[..., 3])
    others = [0, 1, 2, 4, 5, 6]
    assert (result.ddf - whole.ddf)[..., others].norm(dim=0).mean() < 0.1
    assert result.warnings == [f"{blank}: the image in memory is blank in some slices, which do not move: k = 3."]


def test_a_blank_slice_of_a_volume_moves_like_its_neighbours(samples):
    files = {key: samples / f"hippocampus/hippocampus_{n}/t1.nii.gz" for key, n in (("fixed", 341), ("moving", 383))}
    register = Registration.load("hippocampus")
    whole = register(**files)
    image = nib.load(files["fixed"])
    data = np.array(image.dataobj)
    data[:, :, 15] = 0
    result = register(nib.Nifti1Image(data, image.affine), files["moving"])
    assert (result.ddf - whole.ddf).norm(dim=0).mean() < 0.1  # .43 if it counts
    assert len(result.warnings) == 1
    assert result.warnings[0].endswith("is blank in some slices, where the motion is that of their neighbours: k = 15.")
