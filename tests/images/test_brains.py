"""Checks of brains: what the model expects passes in silence, everything else is said once; the bias correction."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from scripts.images import CheckBrainsd, CorrectBiasd
from scripts.images.brains import brightness_ratio, skull_complaint
from scripts.images.loading import read_nifti


@pytest.fixture
def brain(samples):
    return read_nifti(samples / "brain_synthetic" / "synthetic_20" / "t1.nii.gz", "fixed")


def volume(array, spacing=2.0, name="a.nii.gz"):
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
    values = torch.as_tensor(np.asarray(array), dtype=torch.float32)
    return MetaTensor(values[None], affine=affine, meta={"filename_or_obj": name})


def box(size, inside):
    """A box of ones in the middle of a cube of zeros."""
    array = np.zeros((size,) * 3)
    margin = (size - inside) // 2
    array[(slice(margin, margin + inside),) * 3] = 1
    return array


def field_inside(brain, strength=2.5):
    """A smooth bias field, asymmetric, that changes by a factor of ``strength`` within the brain."""
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in brain.shape[1:]], indexing="ij")
    log = 0.5 * x - 0.3 * y - 0.4 * y * z + 0.5 * z**2
    inside = brain.as_tensor()[0] > 0
    return torch.exp(log * np.log(strength) / (log[inside].max() - log[inside].min()))


def with_values(brain, values, name):
    return MetaTensor(values, affine=brain.affine, meta={"filename_or_obj": name})


def test_what_a_skull_stripped_brain_is():
    # 50^3 voxels of 8 mm^3 are 1 litre, in 64^3: 52 % background
    assert skull_complaint(volume(box(64, 50))) == ""
    assert skull_complaint(volume(box(64, 50) + 7)) == "", "a background of 7 is a background"
    assert skull_complaint(volume(box(64, 50), 3.0)) == "3.4 litres are not background, expected 0.3 to 2.6"
    assert skull_complaint(volume(box(64, 50), 1.0)) == "0.1 litres are not background, expected 0.3 to 2.6"
    # 60^3 of 64^3: 18 % background
    assert skull_complaint(volume(box(64, 60))) == "18 % of the volume have the minimum value, expected at least 25 %"
    shifted = np.roll(box(64, 50), 7, axis=0)
    # one of six faces is touched by 50^2 of 64^2 voxels: 10.2 %
    assert skull_complaint(volume(shifted)) == "10 % of its border are not background, expected at most 10 %"


def test_a_background_need_not_be_the_minimum(brain):
    """z-scores with a background of 0, and the ringing of a spline."""
    values = brain.as_tensor()
    inside = values > 0
    scores = torch.where(inside, (values - values[inside].mean()) / values[inside].std(), 0)
    assert scores.min() < -1
    assert skull_complaint(with_values(brain, scores, "z.nii.gz")) == ""
    itk = sitk.GetImageFromArray(values[0].double().numpy())
    moved = sitk.Resample(itk, itk, sitk.TranslationTransform(3, (0.4, 0.4, 0.4)), sitk.sitkBSpline, 0.0)
    ringing = torch.from_numpy(sitk.GetArrayFromImage(moved)).float()[None]
    assert ringing.min() < -2
    assert skull_complaint(with_values(brain, ringing, "r.nii.gz")) == ""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in values.shape[1:]], indexing="ij")
    skin = torch.where(torch.stack(axes).norm(dim=0) < 1.25, 120.0, 0.0)
    head = torch.where(inside, values, skin) - 30 * torch.rand(values.shape)
    assert skull_complaint(with_values(brain, head, "head.nii.gz"))


def test_what_a_correction_leaves_is_told_without_its_advice(brain, caplog):
    biased = with_values(brain, brain.as_tensor() * field_inside(brain), "biased.nii.gz")
    biased.meta["bias_corrected"] = True
    CheckBrainsd("fixed")({"fixed": biased})
    (record,) = caplog.records
    assert record.getMessage().endswith("expected at most 1.4 times; this is what is left after its correction.")


def test_the_brightness_ratio_of_a_known_field():
    # a cube of 8 blocks of 24 mm a side, uniform, then brighter along the second axis by 5 % a block
    uniform = np.ones((96, 96, 96))
    uniform[0, 0, 0] = 0
    assert brightness_ratio(volume(uniform)) == pytest.approx(1, abs=1e-6)
    ramp = uniform * np.exp(0.05 * np.arange(96) / 12)[:, None]
    assert brightness_ratio(volume(ramp)) == pytest.approx(np.exp(0.05 * 7), abs=1e-3)
    assert brightness_ratio(volume(box(30, 20))) == 1, "too few blocks"


def test_the_shipped_brains_pass_and_others_are_named(brain, caplog):
    check = CheckBrainsd(("fixed", "moving"))
    check({"fixed": brain, "moving": brain})
    assert not caplog.records
    noise = 5 * torch.rand(brain.shape, generator=torch.Generator().manual_seed(0))
    noisy = with_values(brain, brain.as_tensor() + noise, "noisy.nii.gz")
    biased = with_values(brain, brain.as_tensor() * field_inside(brain), "biased.nii.gz")
    data = check({"fixed": noisy, "moving": biased})
    assert data["fixed"] is noisy
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(
        "fixed: noisy.nii.gz does not look skull-stripped: 0 % of the volume have the minimum value"
    )
    assert second.startswith("moving: biased.nii.gz has a strong bias field: white matter is 1.7 times as bright")
    assert "\n" not in first + second


def test_bias_correction_takes_more_than_half_of_a_field(brain):
    field = field_inside(brain)
    data = {"moving": with_values(brain, brain.as_tensor() * field, "biased.nii.gz")}
    result = CorrectBiasd("moving")(data)["moving"]
    inside = brain.as_tensor() > 0
    before = field[None][inside].log().std()
    after = (result.as_tensor()[inside] / brain.as_tensor()[inside]).log().std()
    assert after < before / 2
    assert brightness_ratio(result) < 1.2 < 1.4 < brightness_ratio(data["moving"])
    assert torch.equal(result.as_tensor() > 0, inside), "the background must stay 0"
    torch.testing.assert_close(result.affine, brain.affine)
    assert result.meta["filename_or_obj"] == "biased.nii.gz"
    assert result.dtype == torch.float32
