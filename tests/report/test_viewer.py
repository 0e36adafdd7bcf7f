"""Whole volumes for the viewer of a page."""

import base64
import gzip

import nibabel as nib
import numpy as np
import pytest

from scripts.report.entries import find_entries
from scripts.report.viewer import LIBRARY, _steps, pack_library, pack_pairs

from .conftest import add_error_map


def unpacked(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_volumes_are_those_of_the_files_in_8_bits(registered, tmp_path):
    registered(tmp_path)
    errors = np.linspace(0, 5, 16 * 14 * 12).reshape(16, 14, 12)
    add_error_map(tmp_path, errors)
    found = pack_pairs(find_entries([tmp_path]).entries)[tmp_path.name]
    assert set(found) == {"fixed", "warped", "label_fixed", "label_warped", "jacobian", "error"}
    images = {key: unpacked(text) for key, text in found.items()}
    assert all(image.get_data_dtype() == np.uint8 for image in images.values())
    written = nib.load(tmp_path / "moving_warped.nii.gz")
    assert all(np.array_equal(image.affine, written.affine) for image in images.values())
    values = {key: image.get_fdata() for key, image in images.items()}
    assert np.abs(values["error"] - errors).max() <= 5 / 255 / 2 + 1e-6
    assert np.abs(values["jacobian"] - 1).max() <= 1 / 255 + 1e-6
    assert (values["fixed"].min(), values["fixed"].max()) == (0, pytest.approx(1))
    label = np.asarray(nib.load(tmp_path / "label_warped.nii.gz").dataobj)
    assert np.array_equal(values["label_warped"], label)  # ids 0 and 1
    assert int(images["label_warped"].header["intent_code"]) == 1002  # a label map


def test_large_volumes_are_thinned_evenly():
    assert _steps((160, 160, 12), np.array([1.4, 1.4, 8])) == [1, 1, 1]
    assert _steps((256, 256, 256), np.ones(3)) == [2, 2, 2]
    assert _steps((512, 512, 20), np.array([0.7, 0.7, 5])) == [2, 2, 1]


def test_the_first_pairs_fill_the_budget(registered, tmp_path):
    for name in "abc":
        registered(tmp_path / name)
    entries = find_entries([tmp_path]).entries
    sizes = [sum(map(len, found.values())) for found in pack_pairs(entries).values()]
    assert list(pack_pairs(entries, budget=sizes[0] + sizes[1])) == ["a", "b"]


def test_the_library_is_that_of_its_package():
    unzipped = gzip.decompress(base64.b64decode(pack_library()))
    assert unzipped == LIBRARY.read_bytes()
    assert "niivue" in (LIBRARY.parent / "LICENSE.txt").read_text()
    assert b"</script" not in unzipped.lower()
