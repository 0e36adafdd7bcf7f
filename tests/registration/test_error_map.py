"""The expected error of a registration: when it is computed, where it lies, and in which unit."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor

from scripts import InputError, Registration
from scripts.registration.evaluator import PairEvaluator
from scripts.registration.inferer import RegistrationInferer
from scripts.results.names import USUAL
from scripts.results.writer import RegistrationWriter
from scripts.verdict import ErrorModel
from scripts.verdict.error_map import FEATURES

from ..conftest import Shift, load_json

IDENTITY = torch.eye(4, dtype=torch.float64)
TWO_VOXELS = ErrorModel([0.0] * 2 * len(FEATURES), [0.0, 1.0], [2.0, 3.0])  # everywhere


class Recorded(Shift):
    """Moves nothing, and keeps what it was called with."""

    def __init__(self, dims):
        super().__init__([0.0] * dims)
        self.calls = []

    def forward(self, image):
        self.calls.append(image)
        return super().forward(image)


def grid(values, *spacing):
    return MetaTensor(values[None].float(), affine=torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64)))


def registration(dims=3, model=TWO_VOXELS):
    return Registration(Recorded(dims), dict, RegistrationInferer(dims), error_model=model)


def pair(network_grid, native, image, **more):
    return {"fixed": network_grid, "native_fixed": native, "native_moving": native, "alignment": IDENTITY} | {
        "image": image,
        **more,
    }


def bright(*shape):
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.5


def test_it_is_computed_once_and_only_when_asked_for():
    register = registration()
    values = torch.rand(6, 5, 4)
    result = register.register({}, pair(grid(values, 1, 1, 1), grid(values, 1, 1, 1), bright(6, 5, 4)))
    _ = result.warped, result.jacobian, result.verdict
    assert len(register.network.calls) == 1
    assert result.error_mm.shape == (1, 6, 5, 4)
    first, second = register.network.calls
    assert torch.equal(second, first.flip(1))
    assert result.expected_error_mm == {"mean": 2.0, "percentile95": 2.0}
    assert len(register.network.calls) == 2


def test_millimetres_on_the_fixed_images_own_grid_by_hand():
    # two voxels of 2 mm are 4 mm; the network sees 6 x 4 x 3 voxels, which end at 11, 7 and 5 mm
    native = grid(torch.rand(14, 5, 3), 1, 2, 4)
    image = bright(6, 4, 3)
    image[1, 0] = 0.0  # background up to 1 mm
    result = registration().register({}, pair(grid(torch.zeros(6, 4, 3), 2, 2, 2), native, image))
    expected = torch.zeros(14, 5, 3)
    expected[1:12, :4, :2] = 4.0  # the voxel at 1 mm is as near to the tissue, and even numbers win
    found = result.error_mm[0].as_tensor()
    torch.testing.assert_close(found[2:], expected[2:])
    assert (found[0] == 0).all()
    assert torch.equal(result.error_mm.affine, native.affine)


def test_slices_of_a_stack_are_measured_in_their_planes():
    native = grid(torch.rand(8, 8, 3), 1.5, 1.5, 10)
    result = registration(2).register({}, pair(native, native, bright(8, 8, 3)))
    torch.testing.assert_close(result.error_mm.as_tensor(), torch.full((1, 8, 8, 3), 3.0))


def test_a_grid_that_is_twice_as_fine_is_looked_at_on_the_networks_own():
    register = registration()
    fine = grid(torch.rand(11, 9, 7), 1, 1, 1)
    result = register.register({}, pair(fine, fine, bright(11, 9, 7), fine=True))
    torch.testing.assert_close(result.error_mm.as_tensor(), torch.full((1, 11, 9, 7), 4.0))  # two voxels of 2 mm
    assert [call.shape[2:] for call in register.network.calls] == [(6, 5, 4), (6, 5, 4)]


def test_an_empty_fixed_image_has_no_error():
    image = bright(6, 5, 4)
    image[1] = 0
    native = grid(torch.rand(6, 5, 4), 1, 1, 1)
    result = registration().register({}, pair(native, native, image))
    assert not result.error_mm.any()
    assert np.isnan(result.expected_error_mm["mean"])


def test_masks_and_landmarks_guide_the_way_back_too():
    register = Registration.classical(3, "ssd", num_repeats=(2,))
    register.error_model = TWO_VOXELS
    values = np.random.default_rng(0).normal(100, 20, (2, 16, 14, 12)).astype(np.float32)
    fixed, moving = (nib.Nifti1Image(part, np.eye(4)) for part in values)
    mask = nib.Nifti1Image(np.ones(fixed.shape, np.uint8), np.eye(4))
    points = np.array([[5.0, 5.0, 5.0]])
    result = register(fixed, moving, mask_fixed=mask, landmarks=(points, points + 1.0))
    errors = result.error_mm.as_tensor()
    assert errors.shape == (1, 16, 14, 12)
    assert set(errors.unique().tolist()) <= {0.0, 2.0}


def test_without_a_model_it_is_one_line(tmp_path):
    native = grid(torch.rand(6, 5, 4), 1, 1, 1)
    register = registration(model=None)
    result = register.register({}, pair(native, native, bright(6, 5, 4)))
    with pytest.raises(InputError, match="error_mm: nothing is known of the errors of this registration"):
        _ = result.error_mm
    writer = RegistrationWriter(tmp_path / "out", None, outputs=["error_mm"])
    evaluator = PairEvaluator(Dataset([{"name": "a"}, {"name": "b"}]), register, writer)
    with pytest.raises(InputError, match="error_mm: nothing is known"):
        evaluator.run()
    assert not (tmp_path / "out").exists()


def test_the_file_and_the_measures_of_a_real_pair(samples, tmp_path):
    pairs = load_json(samples / "hippocampus" / "pairs.json")
    images = [str(samples / "hippocampus" / pairs[0][key]) for key in ("fixed", "moving")]
    result = Registration.load("hippocampus", device="cpu")(*images)
    result.save(tmp_path / "usual")
    assert "error_mm.nii.gz" not in USUAL
    assert not (tmp_path / "usual" / "error_mm.nii.gz").exists()
    assert "expected_error_mm" not in load_json(tmp_path / "usual" / "metrics.json")
    result.save(tmp_path / "asked", outputs=["error_mm"], names="bids")
    (file,) = (tmp_path / "asked").glob("*_desc-error_map.nii.gz")
    written, fixed = nib.load(file), nib.load(images[0])
    assert written.shape == fixed.shape
    np.testing.assert_allclose(written.affine, fixed.affine, atol=1e-5)
    record = json.loads((tmp_path / "asked" / "metrics.json").read_text())
    errors = written.get_fdata()
    assert record["expected_error_mm"]["mean"] == pytest.approx(errors[errors > 0].mean(), rel=1e-4)
    assert record["expected_error_mm"]["percentile95"] == pytest.approx(np.percentile(errors[errors > 0], 95), rel=1e-4)
    assert 0.1 < record["expected_error_mm"]["mean"] < 5
    assert record["outputs"] == [file.name, "metrics.json"]
