"""Frames of one heart, without a server."""

import nibabel as nib
import numpy as np
import pytest

from ..conftest import SAMPLES

pytest.importorskip("monailabel")

from scripts.label_app.frames import FramePropagation

ACDC = {1: "RV", 2: "Myo", 3: "LV"}


class Store:
    """A datastore of images by their names."""

    def __init__(self, **images):
        self.images = images

    def list_images(self):
        return list(self.images)

    def get_image_uri(self, name):
        return str(self.images[name])

    def get_label_uri(self, name, tag):
        return ""


def carried(request, **images):
    path, params = FramePropagation(Store(**images), ACDC, lambda: None)(request)
    label = nib.load(path)
    values = np.asarray(label.dataobj)
    label.uncache()
    return values, params


def test_a_cine_has_volumes_and_strain_as_the_command_measures_them():
    """The law of the sample's motion shortens the middle of the wall by 18 %."""
    cine, label = (SAMPLES / "cine" / f"{name}.nii.gz" for name in ("cine", "label"))
    values, params = carried({"image": str(cine), "image_id": "cine", "label": str(label), "frame": 0}, cine=cine)
    np.testing.assert_array_equal(values[..., 0], np.asarray(nib.load(label).dataobj))
    assert params["peak_circumferential_percent"]["global"] == pytest.approx(-18, abs=1)
    assert params["peak_radial_percent"]["global"] > 10
    assert params["similarity"][0] == pytest.approx(1)
    assert min(params["similarity"]) > 0.9
    assert (params["verdict"], params["reasons"]) == ("good", [])
    volumes = params["volumes_ml"]["LV"]
    assert params["ejection_fraction_percent"]["LV"] == pytest.approx(100 * (1 - min(volumes) / volumes[0]), abs=0.01)
    assert params["ejection_fraction_percent"]["LV"] == pytest.approx(40.6, abs=2)  # of metrics.json


def test_a_label_without_the_cavity_is_carried_without_strain(save):
    cine = nib.load(SAMPLES / "cine" / "cine.nii.gz")
    marks = (np.asarray(nib.load(SAMPLES / "cine" / "label.nii.gz").dataobj) == 2) * np.uint8(9)
    label = save("marks.nii.gz", marks, cine.affine)
    image = cine.get_filename()
    values, params = carried({"image": image, "image_id": "cine", "label": label, "frame": 0}, cine=image)
    assert np.unique(values).tolist() == [0, 9]
    assert "peak_radial_percent" not in params
    assert params["volumes_ml"]["label 9"][7] == pytest.approx(params["volumes_ml"]["label 9"][0], rel=0.1)


def test_two_images_on_different_grids_are_registered_as_a_pair(save):
    cine = nib.load(SAMPLES / "cine" / "cine.nii.gz")
    frames = np.asarray(cine.dataobj)
    label = str(SAMPLES / "cine" / "label.nii.gz")
    smaller = cine.affine.copy()
    smaller[:3, 3] += cine.affine[:3, 0]
    ed, same = (save(f"{name}.nii.gz", frames[..., t], cine.affine) for name, t in (("h_ED", 0), ("same", 7)))
    cut = save("h_ES.nii.gz", frames[1:, ..., 7], smaller)
    one, measured = carried({"image": same, "image_id": "same", "label": label, "source": "h_ED"}, h_ED=ed, same=same)
    other, params = carried({"image": cut, "image_id": "h_ES", "label": label}, h_ED=ed, h_ES=cut)
    assert measured["peak_circumferential_percent"]["global"] == pytest.approx(-18, abs=1.5)
    assert "peak_circumferential_percent" not in params
    agreement = 2 * ((one[1:] == 3) & (other == 3)).sum() / ((one == 3).sum() + (other == 3).sum())
    assert agreement > 0.93
