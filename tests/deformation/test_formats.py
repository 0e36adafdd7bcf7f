"""Displacement files as ITK reads them, on a grid where every mistake of sign, axis or unit shows."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from scripts.deformation import formats
from scripts.deformation.formats import ddf_to_itk, image_like, read_displacement, save_image
from scripts.support.errors import InputError

from ..conftest import oblique_affine


def oblique_reference(shape=(12, 10, 8), dtype=np.int16):
    """Flipped first axis, 1 x 2 x 3 mm, rotated by 20 degrees about z and 10 about x."""
    affine = oblique_affine((1, 2, 3), (15, -30, 40), (20, 10), (-1, 1, 1))
    return nib.Nifti1Image(np.zeros(shape, dtype), affine)


def test_header_and_layout(tmp_path):
    reference = oblique_reference()
    image = ddf_to_itk(np.zeros((3, 12, 10, 8), np.float32), reference)
    nib.save(image, tmp_path / "d.nii.gz")
    image = nib.load(tmp_path / "d.nii.gz")
    assert image.shape == (12, 10, 8, 1, 3)
    assert int(image.header["intent_code"]) == 1007
    np.testing.assert_allclose(image.affine, reference.affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), reference.affine, atol=1e-4)


def test_simpleitk_moves_points_as_the_ddf_does(tmp_path):
    reference = oblique_reference()
    ddf = np.zeros((3, 12, 10, 8), np.float32)
    ddf[:, 4, 5, 6] = (1.5, -2.0, 0.75)  # in voxels
    nib.save(ddf_to_itk(ddf, reference), tmp_path / "d.nii.gz")
    nib.save(reference, tmp_path / "f.nii.gz")
    fixed = sitk.ReadImage(str(tmp_path / "f.nii.gz"))
    field = sitk.ReadImage(str(tmp_path / "d.nii.gz"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(field)
    moved = transform.TransformPoint(fixed.TransformIndexToPhysicalPoint((4, 5, 6)))
    assert fixed.TransformPhysicalPointToContinuousIndex(moved) == pytest.approx((5.5, 3.0, 6.75), abs=1e-4)


def read(path, reference):
    return read_displacement(path, "displacement", torch.from_numpy(reference.affine), (*reference.shape, 1)[:3])


def test_there_and_back(tmp_path):
    ddf = np.random.default_rng(0).normal(size=(3, 12, 10, 8)).astype(np.float32)
    nib.save(ddf_to_itk(ddf, oblique_reference()), tmp_path / "d.nii.gz")
    np.testing.assert_allclose(read(tmp_path / "d.nii.gz", oblique_reference()), ddf, atol=2e-4)


def test_a_field_of_simpleitk_on_another_grid(tmp_path):
    """A known affine field, coarser, flipped and larger than the fixed image, as SimpleITK writes it."""
    field = sitk.Image([16, 14, 12], sitk.sitkVectorFloat64, 3)
    field.SetSpacing((2.5, 4.0, 5.0))
    field.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    reference = oblique_reference()
    center = sitk.ReadImage(save(reference, tmp_path)).TransformContinuousIndexToPhysicalPoint((5.5, 4.5, 3.5))
    field.SetOrigin([c - d * s * (n - 1) / 2 for c, d, s, n in zip(center, (-1, 1, 1), (2.5, 4, 5), (16, 14, 12))])
    matrix, shift = np.array([[0.1, 0.02, 0], [0, -0.05, 0.03], [0.01, 0, 0.04]]), np.array([2.0, -3.0, 1.0])
    for index in np.ndindex(16, 14, 12):
        point = np.array(field.TransformIndexToPhysicalPoint(index)) - center
        field[index] = (matrix @ point + shift).tolist()
    sitk.WriteImage(field, str(tmp_path / "d.nii.gz"))
    ddf = read(tmp_path / "d.nii.gz", reference)
    fixed = sitk.ReadImage(str(tmp_path / "f.nii.gz"))
    for index in ((0, 0, 0), (4, 5, 6), (11, 9, 7)):
        point = np.array(fixed.TransformIndexToPhysicalPoint(index))
        moved = fixed.TransformPhysicalPointToContinuousIndex(point + matrix @ (point - center) + shift)
        assert ddf[(slice(None), *index)].tolist() == pytest.approx(np.array(moved) - index, abs=1e-3)


def save(image, tmp_path):
    nib.save(image, tmp_path / "f.nii.gz")
    return str(tmp_path / "f.nii.gz")


def test_outside_its_grid_a_field_is_zero(tmp_path):
    reference = nib.Nifti1Image(np.zeros((6, 5, 4), np.float32), np.eye(4))
    ddf = np.ones((3, 2, 5, 4), np.float32)
    nib.save(ddf_to_itk(ddf, nib.Nifti1Image(np.zeros((2, 5, 4), np.float32), np.eye(4))), tmp_path / "d.nii.gz")
    assert read(tmp_path / "d.nii.gz", reference)[0, :, 0, 0].tolist() == [1, 1, 0, 0, 0, 0]


def test_what_is_no_displacement_is_refused(tmp_path):
    reference, path = oblique_reference(), tmp_path / "d.nii.gz"
    cases = {
        "does not exist": None,
        r"has shape \(12, 10, 8\): expected a displacement field as ITK": np.zeros((12, 10, 8)),
        r"has shape \(12, 10, 8, 3\)": np.zeros((12, 10, 8, 3)),
        "holds 1 NaN": np.where(np.arange(72).reshape(4, 3, 2, 1, 3) == 5, np.nan, 0),
    }
    for message, data in cases.items():
        if data is not None:
            nib.save(nib.Nifti1Image(data, np.eye(4)), path)
        with pytest.raises(InputError, match=f"^displacement: .*d.nii.gz {message}"):
            read(path, reference)
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        read(path, reference)


def test_a_2d_reference_gives_a_field_of_two_components(tmp_path):
    affine = np.diag([-1.0, 2.0, 1.0, 1.0])
    ddf = np.zeros((3, 6, 5, 1), np.float32)
    ddf[0], ddf[1] = 1, 2
    nib.save(ddf_to_itk(ddf, nib.Nifti1Image(np.zeros((6, 5), np.float32), affine)), tmp_path / "d.nii.gz")
    field = sitk.ReadImage(str(tmp_path / "d.nii.gz"))
    assert field.GetDimension() == 2
    # LPS: first axis -1 mm in R is +1 in L; second 2 mm in A is -2 in P
    assert field[3, 3] == pytest.approx((1.0, -4.0))
    back = read(tmp_path / "d.nii.gz", nib.Nifti1Image(np.zeros((6, 5), np.float32), affine))
    np.testing.assert_allclose(back, ddf, atol=1e-6)


def test_image_like_keeps_header_and_takes_the_data_type():
    reference = oblique_reference()
    reference.header["descrip"] = b"cine"
    reference.header.set_slope_inter(2, 1)
    image = image_like(np.full((12, 10, 8), 0.5, np.float32), reference)
    assert image.header["descrip"].tobytes().startswith(b"cine")
    assert image.get_data_dtype() == np.float32
    assert image.get_fdata().max() == 0.5


@pytest.mark.parametrize(("intent", "sign"), [(1007, -1), (1006, 1)])
def test_the_intent_says_the_frame_of_the_vectors(tmp_path, intent, sign):
    """As SimpleITK reads the same file: 1006 is RAS, 1007 is LPS."""
    image = nib.Nifti1Image(np.full((4, 5, 6, 1, 3), (3, -2, 4), np.float32), np.diag([1.0, 2, 4, 1]))
    image.header.set_intent(intent)
    nib.save(image, tmp_path / "field.nii.gz")
    ddf = read_displacement(tmp_path / "field.nii.gz", "displacement", torch.eye(4), (3, 3, 3))
    assert ddf[:, 1, 1, 1].tolist() == [sign * 3, sign * -2, 4]
    by_itk = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)[1, 1, 1]
    np.testing.assert_allclose(ddf[:, 1, 1, 1], np.array(by_itk) * [-1, -1, 1])


@pytest.mark.parametrize("fast", [True, False])
def test_a_saved_image_is_gzip_with_the_same_bytes_every_time(tmp_path, monkeypatch, fast):
    if fast and not formats.HAS_ISAL:
        pytest.skip("isal is not installed")
    monkeypatch.setattr(formats, "HAS_ISAL", fast)
    image = nib.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), oblique_reference().affine)
    for name in ("a.nii.gz", "b.nii.gz", "c.nii"):
        save_image(image, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == (tmp_path / "c.nii").read_bytes()
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii.gz").get_fdata(), image.get_fdata())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6), (4, 5, 6, 1, 3)])
def test_a_saved_image_is_what_nibabel_writes(tmp_path, order, shape):
    header = nib.Nifti1Header(endianness=order)
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"scanned twice"))
    reference = nib.Nifti1Image(np.zeros(shape[:3], np.int16), oblique_reference().affine, header)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    for data in (values, np.asfortranarray(values), values.astype(np.uint8)):
        save_image(image_like(data, reference), tmp_path / "a.nii.gz")
        assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == image_like(data, reference).to_bytes()
