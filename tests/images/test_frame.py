"""Where a file lies: what SimpleITK reads from the file itself decides, where a header says two things or nothing."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from scripts.deformation.formats import ddf_to_itk, image_like
from scripts.images.loading import open_nifti, read_nifti
from scripts.support.errors import InputError

from ..conftest import blobs, oblique_affine

ZOOMS = (1.5, 2.0, 3.0)
OBLIQUE = oblique_affine(ZOOMS, (10, -20, 30), (25, -15), (-1, 1, 1))
STRAIGHT = np.diag([*ZOOMS, 1.0])
ONE_MM = np.diag([-1.0, -1.0, 1.0, 1.0])
SHEARED = STRAIGHT + np.array([[0, 0.5, 0, 0], *[[0] * 4] * 3])


def write(path, qform=None, qcode=0, sform=None, scode=0, units="mm", zooms=ZOOMS):
    """A file whose header says exactly this; nibabel's own saving would make both forms agree."""
    header = nib.Nifti1Header()
    header.set_data_shape((8, 9, 10))
    header.set_data_dtype(np.uint16)
    if qform is not None:
        header.set_qform(qform, 1)
    if sform is not None:
        header.set_sform(sform, 1)
    header["qform_code"], header["sform_code"] = qcode, scode
    header["pixdim"][1:4] = zooms
    header.set_xyzt_units(units)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path.write_bytes(header.binaryblock + b"\0" * 4 + blobs((8, 9, 10)).tobytes(order="F"))
    return path


def affine_of_itk(path):
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


HEADERS = {
    "no code": {},
    "no code, forms that are there": {"qform": OBLIQUE, "sform": STRAIGHT},
    **{
        f"qform {q} and sform {s} differ": {"qform": OBLIQUE, "qcode": q, "sform": STRAIGHT, "scode": s}
        for q, s in ((1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (4, 1), (3, 5))
    },
    "sform of 1 mm": {"sform": ONE_MM, "scode": 2},
    "sform of 1 mm beside a qform": {"sform": ONE_MM, "scode": 2, "qform": OBLIQUE, "qcode": 1},
    "sheared sform beside a qform": {"sform": SHEARED, "scode": 1, "qform": OBLIQUE, "qcode": 1},
    "microns": {"qform": OBLIQUE, "qcode": 1, "units": "micron"},
    "metres": {"sform": STRAIGHT, "scode": 1, "units": "meter"},
    "no unit": {"sform": OBLIQUE, "scode": 1, "units": "unknown"},
}


@pytest.mark.parametrize("case", HEADERS)
def test_the_frame_is_that_of_itk_and_so_is_that_of_what_is_written(tmp_path, case):
    path = write(tmp_path / "a.nii", **HEADERS[case])
    expected = affine_of_itk(path)
    image = open_nifti(path, "fixed")
    np.testing.assert_allclose(image.affine, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(read_nifti(path, "fixed").affine.numpy(), expected, rtol=1e-4, atol=1e-4)
    nib.save(image_like(blobs((8, 9, 10)).astype(np.float32), image), tmp_path / "out.nii.gz")
    np.testing.assert_allclose(affine_of_itk(tmp_path / "out.nii.gz"), expected, rtol=1e-4, atol=1e-4)
    # one voxel along the first axis, as a vector in ITK's world
    nib.save(ddf_to_itk(np.eye(3)[0][:, None, None, None] + np.zeros((3, 8, 9, 10)), image), tmp_path / "field.nii.gz")
    vector = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)[3, 4, 5]
    np.testing.assert_allclose(vector, expected[:3, 0] * [-1, -1, 1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", [{"qform": OBLIQUE, "qcode": 1}, {"sform": OBLIQUE, "scode": 1}])
def test_a_plain_header_is_read_to_the_last_digit(tmp_path, case):
    path = write(tmp_path / "a.nii", **case)
    np.testing.assert_array_equal(open_nifti(path, "fixed").affine, nib.load(path).affine)


@pytest.mark.parametrize(
    "case", [{"sform": SHEARED, "scode": 1}, {"sform": np.full((4, 4), np.nan), "scode": 1}, {"zooms": (np.nan, 1, 1)}]
)
def test_what_itk_does_not_read_is_refused(tmp_path, case):
    with pytest.raises(InputError, match=r"fixed: .*a.nii (is|has) .*: expected a valid sform or qform"):
        open_nifti(write(tmp_path / "a.nii", **case), "fixed")


def test_an_image_in_memory_keeps_the_affine_that_it_was_given(tmp_path):
    path = write(tmp_path / "a.nii", **HEADERS["sform of 1 mm"])
    np.testing.assert_allclose(read_nifti(nib.load(path), "fixed").affine.numpy(), affine_of_itk(path), atol=1e-4)
    image = nib.Nifti1Image(blobs((8, 9, 10)), OBLIQUE)
    np.testing.assert_array_equal(read_nifti(image, "fixed").affine.numpy(), OBLIQUE)


def test_units_that_nifti_does_not_define_are_read_and_not_written(tmp_path):
    path = write(tmp_path / "f.nii", sform=OBLIQUE, scode=1)
    header = nib.load(path).header
    header["xyzt_units"] = 152  # space: unknown; time: nothing that is defined
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    image = open_nifti(path, "fixed")
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-4)
    assert image_like(np.zeros((8, 9, 10), np.float32), image).header.get_xyzt_units() == ("mm", "unknown")


def test_a_quaternion_that_is_none_beside_a_sform_is_left_to_itk(tmp_path):
    path = write(tmp_path / "f.nii", sform=OBLIQUE, scode=1, qform=OBLIQUE, qcode=1)
    header = nib.load(path).header
    header["quatern_b"] = 1.2  # longer than 1
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    try:
        expected = affine_of_itk(path)
    except RuntimeError:
        with pytest.raises(InputError, match="f.nii"):
            open_nifti(path, "fixed")
    else:
        np.testing.assert_allclose(open_nifti(path, "fixed").affine, expected, atol=1e-3)
