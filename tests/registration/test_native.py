"""From the network's field to the fixed image's own grid, by hand."""

import nibabel as nib
import numpy as np
import torch

from scripts.deformation.formats import ddf_to_itk
from scripts.registration.native import InvertDdfd, ToNativeGridd, WarpMovingd

from ..conftest import meta, ramp

IDENTITY = torch.eye(4, dtype=torch.float64)


def test_moving_is_sampled_through_both_affines_and_is_0_outside():
    # moving voxel = fixed voxel - 2 (its origin lies at 2 mm); the displacement adds 1.5 along the first axis
    ddf = torch.zeros(3, 6, 4, 3)
    ddf[0] = 1.5
    data = {
        "native_fixed": meta(ramp()),
        "native_moving": meta(ramp(), shift=2.0),
        "label_moving": meta((ramp() > 3).float(), shift=2.0),
        "alignment": IDENTITY,
        "ddf": ddf,
    }
    result = WarpMovingd()(data)
    assert result["resampled"][0, :, 0, 0].tolist() == [0, 0, 1, 2, 3, 4]
    # fixed voxels 0..5 look at moving voxels -0.5..4.5; half a voxel outside still is the border's value
    assert result["warped"][0, :, 0, 0].tolist() == [1, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert result["resampled_label"][0, :, 0, 0].tolist() == [0, 0, 0, 0, 0, 1]


def test_the_alignment_alone_is_the_state_before():
    alignment = IDENTITY.clone()
    alignment[0, 3] = 1.0
    data = {
        "native_fixed": meta(ramp()),
        "native_moving": meta(ramp()),
        "fixed": meta(ramp()),
        "alignment": alignment,
        "ddf": torch.zeros(3, 6, 4, 3),
    }
    result = WarpMovingd()(ToNativeGridd()(data))
    assert result["ddf"][:, 2, 2, 1].tolist() == [1, 0, 0]
    assert result["resampled"][0, :, 0, 0].tolist() == [2, 3, 4, 5, 6, 0]
    torch.testing.assert_close(result["warped"], result["resampled"])


def test_the_inverse_residual_is_in_millimetres():
    # u = 0.25 i: v = -u leaves -0.25 i + 0.25 (i - 0.25 i) = -i / 16 voxels at row i, of 2 mm; the tolerance is 0.5
    ddf = torch.zeros(3, 6, 4, 3)
    ddf[0] = 0.25 * torch.arange(6.0).view(-1, 1, 1)
    data = {"native_fixed": meta(ramp(), spacing=2.0), "ddf": ddf}
    result = InvertDdfd(tolerance=0.5)(data)
    assert result["inverse_converged"].all()
    torch.testing.assert_close(result["inverse_residual_mm"][:, 1, 1], torch.arange(6.0) / 8)


def test_a_file_takes_the_place_of_the_network(tmp_path):
    field = np.zeros((3, 6, 4, 3), np.float32)
    field[0] = 1.5
    for name, factor in (("d", 1), ("true", 2)):
        image = ddf_to_itk(factor * field, nib.Nifti1Image(np.zeros((6, 4, 3), np.float32), np.eye(4)))
        nib.save(image, tmp_path / f"{name}.nii.gz")
    data = {"native_fixed": meta(ramp()), "displacement": str(tmp_path / "d.nii.gz")}
    result = ToNativeGridd()({**data, "true_displacement": str(tmp_path / "true.nii.gz")})
    assert result["ddf"][:, 3, 2, 1].tolist() == [1.5, 0, 0]
    assert result["true_ddf"][:, 3, 2, 1].tolist() == [3, 0, 0]
    assert "true_ddf" not in ToNativeGridd()(data)
