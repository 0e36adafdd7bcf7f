"""The same image in every format has the same voxels in the same place."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from scripts import Registration
from scripts.images.loading import as_nifti, read_nifti
from scripts.support.errors import InputError
from scripts.support.files import sha256

from ..conftest import oblique_affine

AFFINE = oblique_affine((1, 2, 3), (15, -30, 40), (20, 10), (-1, 1, 1))
RIGHT_HANDED = oblique_affine((1, 2, 3), (15, -30, 40), (20, 10), (1, 1, 1))  # as the slices of all DICOM series


def image(dtype=np.int16, shape=(12, 10, 8), affine=AFFINE):
    values = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    result = nib.Nifti1Image(values, affine)
    result.set_qform(affine, 1)
    result.set_sform(affine, 1)
    return result


def save(source, path):
    """Write an image in the format of a name; what ITK does not write is written by nibabel."""
    if path.suffix in (".mgz", ".mgh"):
        nib.save(nib.MGHImage(source.get_fdata().astype(np.float32), source.affine), path)
    elif path.suffix in (".img", ".hdr"):
        nib.save(nib.Nifti1Pair(np.asanyarray(source.dataobj), source.affine, source.header), path)
    else:
        nib.save(source, path.parent / "itk.nii")
        sitk.WriteImage(sitk.ReadImage(str(path.parent / "itk.nii")), str(path))
    return path


def save_series(source, folder, uid="1.2.3", first=0):
    """Write the slices of an image as a DICOM series, in an order that their names do not tell."""
    folder.mkdir(exist_ok=True)
    nib.save(source, folder.parent / "itk.nii")
    volume = sitk.ReadImage(str(folder.parent / "itk.nii"), sitk.sitkInt16)
    direction = volume.GetDirection()
    for k in range(volume.GetDepth()):
        part = volume[:, :, k]
        tags = {
            "0008|0060": "MR",
            "0020|000e": uid,
            "0020|000d": "1.2",
            "0020|0032": "\\".join(map(str, volume.TransformIndexToPhysicalPoint((0, 0, k)))),
            "0020|0037": "\\".join(str(direction[i]) for i in (0, 3, 6, 1, 4, 7)),
            "0020|0013": str(k),
        }
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{first + (5 * k) % 7:02d}_{k}.dcm"))
        writer.Execute(part)
    return folder


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "a.img", "a.hdr", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "series"])
def test_an_image_is_the_same_in_every_format(tmp_path, name):
    source = image(affine=RIGHT_HANDED if name == "series" else AFFINE)
    path = save_series(source, tmp_path / name) if name == "series" else save(source, tmp_path / name)
    found = read_nifti(path, "fixed")
    np.testing.assert_array_equal(found.numpy()[0], source.get_fdata())
    np.testing.assert_allclose(found.affine.numpy(), source.affine, atol=1e-4)


@pytest.mark.parametrize("name", ["l.mha", "l.nrrd", "l.img"])
def test_large_label_ids_stay_what_they_are(tmp_path, name):
    source = image(np.int32)
    labels = np.asanyarray(source.dataobj) + 312782574
    path = save(nib.Nifti1Image(labels, AFFINE, dtype=np.int32), tmp_path / name)
    np.testing.assert_array_equal(read_nifti(path, "label_fixed", label=True).numpy()[0], labels)


def test_a_flat_image_is_a_stack_of_one(tmp_path):
    flat = sitk.GetImageFromArray(np.arange(30, dtype=np.uint8).reshape(5, 6))
    flat.SetSpacing((1.5, 2))
    sitk.WriteImage(flat, str(tmp_path / "flat.png.mha"))
    found = read_nifti(tmp_path / "flat.png.mha", "fixed", spatial_dims=2)
    assert found.shape == (1, 6, 5, 1)
    assert found.pixdim.tolist()[:2] == [1.5, 2]


def test_a_pair_of_other_formats_is_registered_like_the_same_pair_of_nifti(tmp_path):
    source = image(shape=(16, 16, 5), affine=RIGHT_HANDED)
    moving = nib.Nifti1Image(np.roll(np.asanyarray(source.dataobj), 1, 0), RIGHT_HANDED)
    files = {"fixed": save_series(source, tmp_path / "series"), "moving": save(moving, tmp_path / "m.mgz")}
    register = Registration.classical(3, "ssd")
    other = register(**files)
    other.save(tmp_path / "out")
    np.testing.assert_allclose(other.ddf, register(source, moving).ddf, atol=1e-3)
    written = nib.load(tmp_path / "out" / "displacement.nii.gz")
    np.testing.assert_allclose(written.affine, RIGHT_HANDED, atol=1e-4)
    before = sha256(files["fixed"])
    (files["fixed"] / "00_0.dcm").rename(files["fixed"] / "renamed.dcm")
    assert sha256(files["fixed"]) != before


def test_what_cannot_be_read_is_said_in_one_line(tmp_path):
    two = save_series(image(), tmp_path / "two", "1.2.3")
    save_series(image(), two, "1.2.4", first=50)
    gap = save_series(image(), tmp_path / "gap")
    sorted(gap.glob("*_3.dcm"))[0].unlink()
    (tmp_path / "empty").mkdir()
    nib.save(nib.AnalyzeImage(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "old.hdr")
    colour = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "colour.nrrd"))
    whole = gzip.compress(save(image(), tmp_path / "a.mgh").read_bytes())
    (tmp_path / "flipped.mgz").write_bytes(whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])
    (tmp_path / "torn.mha").write_text("ObjectType = Image\n")
    for name, message in (
        ("two", r"two holds 2 DICOM series: expected one; they are 1\.2\.3.*1\.2\.4"),
        ("gap", r"gap holds a DICOM series with slices 3 to 6 mm apart"),
        ("empty", "empty is a folder without DICOM images"),
        ("old.hdr", "old.hdr is Analyze 7.5"),
        ("colour.nrrd", r"colour.nrrd has 3 axes and 3 values per voxel"),
        ("flipped.mgz", "flipped.mgz cannot be read as MGZ; it may be damaged"),
        ("torn.mha", "torn.mha cannot be read as MHA; it may be damaged"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            as_nifti(tmp_path / name, "moving")
        assert "\n" not in str(caught.value)
