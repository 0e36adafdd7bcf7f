"""One registration as an object: its stages by hand, the tasks by name, images in memory, and its files."""

import nibabel as nib
import numpy as np
import torch

from scripts.deformation.formats import ddf_to_itk
from scripts.registration import Registration
from scripts.registration.inferer import RegistrationInferer

from ..conftest import meta, ramp

IDENTITY = torch.eye(4, dtype=torch.float64)


def read_pair(**changes):
    return {"native_fixed": meta(ramp()), "native_moving": meta(ramp()), "alignment": IDENTITY, **changes}


def along_the_first_axis(image):
    return image[0, :, 0, 0].tolist()


class Shift(torch.nn.Module):
    """A network that moves everything by one number of voxels along the first axis."""

    def __init__(self, voxels):
        super().__init__()
        self.voxels = voxels

    def forward(self, image):
        ddf = torch.zeros(len(image), 3, *image.shape[2:])
        ddf[:, 0] = self.voxels
        return ddf


def registration(voxels=0.0):
    return Registration(Shift(voxels), dict, RegistrationInferer(3))


def test_the_alignment_alone_is_the_state_before():
    alignment = IDENTITY.clone()
    alignment[0, 3] = 1.0
    data = read_pair(fixed=meta(ramp()), alignment=alignment, image=torch.zeros(2, 6, 4, 3))
    pair = registration().register({}, data)
    assert pair.ddf[:, 2, 2, 1].tolist() == [1, 0, 0]
    assert along_the_first_axis(pair.resampled) == [2, 3, 4, 5, 6, 0]
    torch.testing.assert_close(pair.warped, pair.resampled)


def test_the_ddf_is_carried_from_the_networks_grid_to_the_fixed_one():
    # one voxel of 2 mm, flipped, is -2 voxels of 1 mm
    grid = meta(torch.zeros(3, 2, 2), shift=4.0, spacing=2.0)
    grid.affine[0, 0] = -2.0
    pair = registration(1.0).register({}, read_pair(fixed=grid, image=torch.zeros(2, 3, 2, 2)))
    assert pair.ddf[:, 2, 2, 1].tolist() == [-2, 0, 0]
    assert set(pair.seconds) == {"network", "native_grid"}


def test_a_file_takes_the_place_of_the_network(tmp_path):
    field = np.zeros((3, 6, 4, 3), np.float32)
    field[0] = 1.5
    files = {}
    for key, factor in (("displacement", 1), ("true_displacement", 2)):
        image = ddf_to_itk(factor * field, nib.Nifti1Image(np.zeros((6, 4, 3), np.float32), np.eye(4)))
        files[key] = str(tmp_path / f"{key}.nii.gz")
        nib.save(image, files[key])
    pair = registration(100.0).register(files, read_pair())
    assert pair.ddf[:, 3, 2, 1].tolist() == [1.5, 0, 0]
    assert pair.true_ddf[:, 3, 2, 1].tolist() == [3, 0, 0]
    assert registration().register({"displacement": files["displacement"]}, read_pair()).true_ddf is None
