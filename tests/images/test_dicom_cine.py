"""A cine in DICOM files is the same as the one they were made of."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from scripts.heart import read_cine
from scripts.images.frame import FLIP

from ..conftest import blobs, message_of, oblique_affine

AFFINE = oblique_affine((1.5, 1.5, 8), (15, -30, 40), (20, 10), (1, 1, 1))  # right-handed, as all DICOM stacks
SHAPE, COUNT, STEP_MS = (12, 10, 4), 5, 40


def cine():
    return np.stack([blobs(SHAPE, seed) for seed in range(COUNT)], -1).astype(np.int16)


def save_dicom(folder, values, skip=(), folder_per_slice=False, further=None):
    """Write each slice of each frame to a file whose name does not tell its place; ``further`` gives tags."""
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    lps = FLIP @ AFFINE
    directions = lps[:3, :3] / spacing
    for z, t in np.ndindex(values.shape[2:]):
        if (z, t) in skip:
            continue
        image = sitk.GetImageFromArray(np.ascontiguousarray(values[:, :, z, t].T))
        image.SetSpacing(spacing[:2].tolist())
        tags = {
            "0008|0060": "MR",
            "0020|000d": "1.2",
            "0020|000e": f"1.2.3.{z if folder_per_slice else 0}",
            "0020|0013": str(z * COUNT + t),
            "0018|1060": str(3 * z + STEP_MS * t),  # slices are taken one after the other
            "0020|0032": "\\".join(f"{x:.7g}" for x in lps[:3, 3] + z * lps[:3, 2]),
            "0020|0037": "\\".join(f"{x:.7g}" for x in (*directions[:, 0], *directions[:, 1])),
            **(further(z, t) if further else {}),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        path = folder / (f"slice{z}" if folder_per_slice else "") / f"IM{(z * 31 + t * 17) % 101:03d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(path) + ".dcm")
        writer.Execute(image)
    return folder


@pytest.mark.parametrize("folder_per_slice", [False, True])
def test_files_are_sorted_by_place_and_time(tmp_path, folder_per_slice):
    folder = save_dicom(tmp_path / "series", cine(), folder_per_slice=folder_per_slice)
    (folder / "notes.txt").write_text("no image")
    found = read_cine(folder)
    np.testing.assert_array_equal(np.asarray(found.image.dataobj), cine())
    np.testing.assert_allclose(found.image.affine, AFFINE, atol=1e-4)
    assert found.frame_seconds == pytest.approx(STEP_MS / 1000)


def test_without_a_trigger_time_the_numbers_of_the_images_count(tmp_path):
    found = read_cine(save_dicom(tmp_path / "series", cine(), further=lambda z, t: {"0018|1060": "0"}))
    np.testing.assert_array_equal(np.asarray(found.image.dataobj), cine())
    assert found.frame_seconds is None


def test_a_label_whose_axes_run_the_other_way_is_turned(tmp_path):
    folder = save_dicom(tmp_path / "series", cine())
    label = np.zeros(SHAPE, np.uint8)
    label[3:6, 2:5, 1] = 3
    turned = AFFINE @ np.array([[1, 0, 0, 0], [0, -1, 0, SHAPE[1] - 1], [0, 0, -1, SHAPE[2] - 1], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(label[:, ::-1, ::-1], turned), tmp_path / "label.nii.gz")
    found = read_cine(folder, tmp_path / "label.nii.gz", 0, {3: "LV"})
    np.testing.assert_array_equal(found.label.numpy()[0], label)


def one_turned(z, t):
    return {"0020|0037": "1\\0\\0\\0\\1\\0"} if (z, t) == (1, 1) else {}


def same_time(z, t):
    return {"0018|1060": str(STEP_MS * (t // 2))}


def no_time(z, t):
    return {"0018|1060": "0", "0020|0013": "1"}


@pytest.mark.parametrize(
    ("skip", "further", "expected"),
    [
        ([(1, t) for t in range(COUNT)], None, "its slices lie 8 to 16 mm apart"),
        ([(1, 3)], None, "slice 2 of 4 has 4 frames, and other slices have 5"),
        ([(z, 3) for z in range(4)], None, "slice 1 has no frame from 80 to 160 ms, and the others are 40 ms apart"),
        ([(z, t) for z in range(4) for t in range(1, COUNT)], None, "has shape (12, 10, 4, 1): expected (X, Y, Z, T)"),
        ([], one_turned, "holds images of different directions or pixel sizes"),
        ([], same_time, "holds several images of one slice at the same time"),
        ([], no_time, "its files say neither a trigger time nor a number"),
    ],
)
def test_what_is_missing_is_said(tmp_path, skip, further, expected):
    folder = save_dicom(tmp_path / "series", cine(), skip, further=further)
    assert expected in message_of(lambda: read_cine(folder))


def test_files_that_are_no_single_images_are_said(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is a folder without DICOM images" in message_of(lambda: read_cine(tmp_path / "empty"))
    folder = save_dicom(tmp_path / "series", cine())
    file = sorted(folder.glob("*.dcm"))[0]
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - 100])
    assert "cannot be read as DICOM" in message_of(lambda: read_cine(folder))
    file.unlink()
    large = save_dicom(tmp_path / "large", cine()[:8], [(z, t) for z, t in np.ndindex(4, COUNT) if (z, t) != (0, 0)])
    next(large.glob("*.dcm")).rename(folder / "small.dcm")
    assert "holds images of" in message_of(lambda: read_cine(folder))
