"""Displacement files as ITK reads them, on a grid where every mistake of sign, axis or unit shows."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from scripts.deformation.formats import ddf_from_itk, ddf_to_itk, image_like

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


def test_there_and_back():
    ddf = np.random.default_rng(0).normal(size=(3, 12, 10, 8)).astype(np.float32)
    np.testing.assert_allclose(ddf_from_itk(ddf_to_itk(ddf, oblique_reference())), ddf, atol=1e-5)


def test_a_scalar_image_is_not_taken_for_a_displacement():
    with pytest.raises(ValueError, match=r"must have shape \(X, Y, Z, 1, 3\), got \(12, 10, 8\)"):
        ddf_from_itk(oblique_reference())


def test_a_2d_reference_gives_a_field_of_two_components(tmp_path):
    affine = np.diag([-1.0, 2.0, 1.0, 1.0])
    ddf = np.zeros((3, 6, 5, 1), np.float32)
    ddf[0], ddf[1] = 1, 2
    nib.save(ddf_to_itk(ddf, nib.Nifti1Image(np.zeros((6, 5), np.float32), affine)), tmp_path / "d.nii.gz")
    field = sitk.ReadImage(str(tmp_path / "d.nii.gz"))
    assert field.GetDimension() == 2
    # LPS: first axis -1 mm in R is +1 in L; second 2 mm in A is -2 in P
    assert field[3, 3] == pytest.approx((1.0, -4.0))


def test_image_like_keeps_header_and_takes_the_data_type():
    reference = oblique_reference()
    reference.header["descrip"] = b"cine"
    reference.header.set_slope_inter(2, 1)
    image = image_like(np.full((12, 10, 8), 0.5, np.float32), reference)
    assert image.header["descrip"].tobytes().startswith(b"cine")
    assert image.get_data_dtype() == np.float32
    assert image.get_fdata().max() == 0.5
