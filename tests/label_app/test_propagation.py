import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.images import read_nifti
from scripts.label_app.propagation import Propagator, ejection_fraction, fuse, names_in, volumes_ml, write_like
from scripts.results.measures import dice_per_class

from ..conftest import SAMPLES, message_of


def labels_of(*rows):
    return [torch.tensor(row, dtype=torch.int32) for row in rows]


def test_the_majority_wins_and_its_share_is_the_confidence():
    labels = labels_of([0, 1, 1, 2], [0, 1, 2, 1], [0, 2, 1, 0])
    label, confidence = fuse(labels, [torch.ones(4)] * 3)
    assert label.tolist() == [0, 1, 1, 0]  # of equal votes the smallest
    torch.testing.assert_close(confidence, torch.tensor([1, 2 / 3, 2 / 3, 1 / 3]))


def test_votes_weigh_what_the_weights_say_voxel_by_voxel():
    labels = labels_of([1, 1, 5], [2, 2, 7], [2, 2, 7])
    weights = [torch.tensor([0.9, 0.3, 0.0]), torch.tensor([0.3, 0.3, 0.0]), torch.tensor([0.3, 0.3, 0.0])]
    label, confidence = fuse(labels, weights)
    assert label.tolist() == [1, 2, 0]  # where nothing counts, the background
    torch.testing.assert_close(confidence, torch.tensor([0.9 / 1.5, 0.6 / 0.9, 0.0]))


def test_volumes_are_in_millilitres_and_the_ejection_fraction_in_percent():
    label = np.array([[1, 1, 2], [0, 1, 1]])
    assert volumes_ml(label, 500.0, {"LV": 1, "Myo": 2, "RV": 3}) == {"LV": 2.0, "Myo": 0.5, "RV": 0.0}
    assert ejection_fraction([100.0, 40.0, 80.0]) == 60.0
    assert ejection_fraction([0.0, 0.0]) is None


def test_labels_are_named_in_the_order_of_their_values_and_only_those_that_are_there():
    names = names_in(np.array([[7, 0], [2, 1]]), {1: "LV", 7: "RV", 3: "Myo"})
    assert list(names.items()) == [("LV", 1), ("label 2", 2), ("RV", 7)]


def test_an_image_of_one_intensity_has_no_similarity(save):
    fixed = SAMPLES / "hippocampus" / "hippocampus_327"
    original = nib.load(fixed / "t1.nii.gz")
    constant = save("constant.nii.gz", np.full(original.shape, 7.0, np.float32), original.affine)
    found = Propagator("hippocampus")(fixed / "t1.nii.gz", constant, fixed / "seg.nii.gz")
    assert found.similarity == 0
    assert found.verdict == "failed"
    assert any(reason.startswith("moving: constant.nii.gz") for reason in found.reasons), "no folder of the server"
    assert torch.isfinite(found.weight).all()


def test_a_label_is_carried_as_the_images_are_registered():
    fixed, moving = (SAMPLES / "hippocampus" / f"hippocampus_{number}" for number in (327, 341))
    truth = read_nifti(fixed / "seg.nii.gz", "label", label=True)[0]
    register = Propagator("hippocampus")
    found = register(fixed / "t1.nii.gz", moving / "t1.nii.gz", moving / "seg.nii.gz")
    assert found.fixed.shape == found.warped.shape == found.label.shape == found.weight.shape == truth.shape
    assert dice_per_class(truth, found.label, [1, 2])["mean"] > 0.75
    assert found.verdict == "good"
    inside = found.fixed > found.fixed.min()
    expected = np.corrcoef(found.fixed[inside], found.warped[inside])[0, 1]
    assert found.similarity == pytest.approx(expected, abs=1e-6)
    assert register.similarity(fixed / "t1.nii.gz", moving / "t1.nii.gz") == found.similarity
    assert found.weight.min() >= 0.001
    assert found.weight.max() <= 1
    agrees = found.weight[(found.label == truth) & (truth > 0)].mean()
    assert agrees > found.weight[(found.label != truth) & (truth > 0)].mean()


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    message = message_of(lambda: Propagator("brain", tmp_path / "other.pt"))
    assert "other.pt is of another network configuration" in message


def test_a_map_is_written_on_the_grid_of_its_reference():
    reference = nib.load(SAMPLES / "sunnybrook" / "SC-N-10" / "SC-N-10_ED.nii.gz")
    values = np.arange(np.prod(reference.shape)).reshape(reference.shape) % 7
    written = nib.load(write_like(values, reference))
    np.testing.assert_array_equal(written.dataobj, values)
    np.testing.assert_allclose(written.affine, reference.affine, atol=1e-5)
    assert written.get_data_dtype() == np.uint16
    assert nib.load(write_like(values / 7, reference)).get_data_dtype() == np.float32
