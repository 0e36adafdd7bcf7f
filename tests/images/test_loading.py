"""Reading a file or the files of a pair: what is accepted, and one clear line for what is not."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.images import LoadPaird, read_nifti
from scripts.support.errors import InputError

from ..conftest import blobs


def test_reads_values_and_affine(save):
    affine = np.diag([-1.5, 2, 3, 1.0])
    affine[:3, 3] = (1, 2, 3)
    image = read_nifti(save("a.nii.gz", blobs((6, 5, 4)), affine), "fixed")
    assert image.shape == (1, 6, 5, 4)
    np.testing.assert_array_equal(image[0].numpy(), blobs((6, 5, 4)))
    np.testing.assert_allclose(image.affine.numpy(), affine)


def test_scale_factors_are_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    read = read_nifti(tmp_path / "a.nii", "fixed")
    np.testing.assert_array_equal(read[0].numpy(), 10 + 0.5 * np.arange(24).reshape(2, 3, 4))


def test_trailing_axes_and_single_slices(save):
    assert read_nifti(save("a.nii", np.arange(24.0).reshape(2, 3, 4, 1)), "fixed").shape == (1, 2, 3, 4)
    assert read_nifti(save("b.nii", np.arange(6.0).reshape(2, 3)), "fixed", spatial_dims=2).shape == (1, 2, 3, 1)


def with_value(value):
    array = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    array[1, 1, 1] = value
    return array


CASES = [
    (np.arange(48.0).reshape(2, 3, 4, 2), {}, r"is a 4D image of shape \(2, 3, 4, 2\): expected 3D"),
    (np.arange(12.0).reshape(3, 4), {}, r"is a 2D image of shape \(3, 4\): this model expects 3D"),
    (np.arange(12.0).reshape(3, 4, 1), {}, r"is a 2D image of shape \(3, 4, 1\): this model expects 3D"),
    (np.arange(12.0).reshape(4, 1, 3), {"spatial_dims": 2}, r"is one voxel wide, of shape \(4, 1, 3\): expected"),
    (np.arange(12.0), {"spatial_dims": 2}, r"is one voxel wide, of shape \(12,\): expected slices"),
    (np.full((3, 4, 5), np.nan), {}, r"holds nothing but NaN: expected an image"),
    (with_value(np.inf), {}, r"holds 1 infinite values: expected none"),
    (with_value(-np.inf), {"label": True}, r"holds 1 infinite values: expected none"),
    (with_value(1).astype(float) * 1e39, {}, r"holds values from 0 to 5.9e\+40: expected a range between 1e-18 and"),
    (with_value(1).astype(float) * 1e-40, {}, r"holds values from 0 to 5.9e-39: expected a range"),
    (with_value(1).astype(float) + 1e15, {}, r"is constant in single precision"),
    (with_value(2**32).astype(float), {"label": True}, r"holds ids from 0 to 4.29497e\+09: expected whole numbers"),
    (with_value(-(2.0**32)), {"label": True}, r"holds ids from -4.29497e\+09 to 59: expected whole"),
    (with_value(1).astype(np.complex64), {}, r"holds complex64 values: expected real numbers"),
    (with_value(0.5), {"label": True}, r"holds fractions: expected the whole numbers of a label map"),
]


@pytest.mark.parametrize(("array", "options", "message"), CASES)
def test_unusable_content_is_named(save, array, options, message):
    path = save("bad.nii.gz", array)
    with pytest.raises(InputError, match=rf"^fixed: .*bad.nii.gz {message}") as caught:
        read_nifti(path, "fixed", **options)
    assert "\n" not in str(caught.value)


def test_nan_is_background_and_said(save, caplog):
    array = with_value(np.nan) - 7
    image = read_nifti(save("a.nii.gz", array), "fixed")
    assert image[0, 1, 1, 1] == -7, "the minimum"
    assert "fixed: " in caplog.text
    assert "a.nii.gz holds 1 NaN values (1.7%): taken as background." in caplog.text
    assert read_nifti(save("b.nii.gz", with_value(np.nan)), "label_fixed", label=True)[0, 1, 1, 1] == 0


@pytest.mark.parametrize(
    ("values", "dtype", "found"),
    [
        ((312782574, 312782578, -1), np.int32, torch.int32),
        ((2**32 - 1, 2**24 + 1, 0), np.uint32, torch.int64),
        ((2**31 - 1, -(2**31), 5), np.float64, torch.int32),
        ((1.00002, 2.99999, 1034.9999), np.float32, torch.int32),
        ((True, False, True), np.uint8, torch.int32),
    ],
)
def test_label_ids_are_whole_numbers_to_the_last_digit(save, values, dtype, found):
    array = np.zeros((4, 5, 6), dtype)
    array[0, 0, :3] = values
    label = read_nifti(save("l.nii.gz", array), "label_fixed", label=True)
    assert label.dtype == found
    assert label[0, 0, 0, :3].tolist() == [round(value) for value in values]


def test_the_dust_of_a_scaled_save_is_wiped_off_and_real_fractions_are_not(tmp_path, caplog):
    def scaled(name, values):
        image = nib.Nifti1Image(np.resize(values, (4, 4, 4)), np.eye(4))
        image.set_data_dtype(np.int16)  # nibabel chooses a slope
        nib.save(image, tmp_path / name)
        return tmp_path / name

    path = scaled("whole.nii.gz", np.array([0, 1035.0, 2035.0, 77.0]))
    assert np.abs(nib.load(path).get_fdata() - np.round(nib.load(path).get_fdata())).max() > 1e-3
    assert read_nifti(path, "label_fixed", label=True).unique().tolist() == [0, 77, 1035, 2035]
    assert "whole.nii.gz holds numbers that are up to 0." in caplog.text
    assert "off a whole one: rounded" in caplog.text
    with pytest.raises(InputError, match="holds fractions"):
        read_nifti(scaled("half.nii.gz", np.array([0, 0.5, 1.0])), "label_fixed", label=True)


def test_every_flipped_bit_of_a_compressed_file_is_found(save, tmp_path):
    """Those that unpack to other voxels without an error of the stream are told from its checksum alone."""
    path = tmp_path / "w.nii.gz"
    save("w.nii.gz", blobs((12, 12, 12)))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    right = read_nifti(path, "fixed")
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(20, len(whole))] ^= 1 << rng.integers(8)
        (tmp_path / "d.nii.gz").write_bytes(damaged)
        try:
            assert torch.equal(read_nifti(tmp_path / "d.nii.gz", "fixed"), right)
        except InputError as error:
            assert "d.nii.gz" in str(error)  # noqa: PT017 - the other outcome is right too
            refused += 1
    assert refused > 95
    (tmp_path / "d.nii.gz").write_bytes(whole + whole[:100])
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        read_nifti(tmp_path / "d.nii.gz", "fixed")


def test_colour_and_empty_images(tmp_path):
    colour = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "colour.nii")
    with pytest.raises(InputError, match=r"colour.nii holds .* values: expected real numbers"):
        read_nifti(tmp_path / "colour.nii", "moving")
    nib.save(nib.Nifti1Image(np.zeros((0, 4, 5)), np.eye(4)), tmp_path / "empty.nii")
    with pytest.raises(InputError, match=r"empty.nii (is empty|cannot be read)"):
        read_nifti(tmp_path / "empty.nii", "moving")


def test_missing_misnamed_and_damaged_files(tmp_path, save):
    with pytest.raises(InputError, match=r"moving: .*none.nii.gz does not exist: expected a NIfTI file"):
        read_nifti(tmp_path / "none.nii.gz", "moving")
    (tmp_path / "image.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"image.png is not named as a NIfTI file"):
        read_nifti(tmp_path / "image.png", "moving")
    whole = (tmp_path / "w.nii.gz") if save("w.nii.gz", blobs((20, 20, 20))) else None
    for name, content in (
        ("cut.nii.gz", whole.read_bytes()[:-500]),
        ("text.nii.gz", b"this is not gzip"),
        ("short.nii", gzip.decompress(whole.read_bytes())[:-100]),
        ("void.nii", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} cannot be read as NIfTI; it may be damaged") as caught:
            read_nifti(tmp_path / name, "moving")
        assert "\n" not in str(caught.value)


def test_a_singular_affine_is_refused(tmp_path):
    image = nib.Nifti1Image(blobs((4, 4, 4)), None)
    image.header.set_sform(np.diag([0, 1, 1, 1]), 1)
    image.header.set_qform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(InputError, match="affine that cannot be inverted"):
        read_nifti(tmp_path / "a.nii", "fixed")


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
