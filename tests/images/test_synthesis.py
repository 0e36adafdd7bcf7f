"""Images from label maps: in the order of a T1-weighted image, on the label map's grid, and the same for a seed."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from scripts.images import RandSynthesizeT1d
from scripts.images.brains import skull_complaint
from scripts.images.loading import read_nifti
from scripts.images.synthesis import TISSUES, paint_t1, without_extracerebral

from ..conftest import oblique_affine

AFFINE = torch.from_numpy(oblique_affine((2.0, 1.5, 1.8), (3, -4, 5), (20, -10), (-1, 1, 1)))


def label_map(*ids, name="/data/a/seg.nii.gz"):
    """A layer of 4 voxels for each id, between two of background."""
    layers = torch.repeat_interleave(torch.tensor([0, *ids, 0]), 4)
    values = layers.float().view(1, -1, 1, 1).expand(1, -1, 10, 11)
    return MetaTensor(values.clone(), affine=AFFINE, meta={"filename_or_obj": name})


def pair(*ids, names=("/data/a/seg.nii.gz", "/data/b/seg.nii.gz")):
    return {key: label_map(*ids, name=name) for key, name in zip(("label_fixed", "label_moving"), names)}


def plain():
    """A synthesis of nothing but the tissues' means."""
    transform = RandSynthesizeT1d().set_random_state(1)
    transform.tissue_noise = (0.0, 0.0)
    transform.scanner = Compose([])
    return transform


def means(image, label):
    return {int(value): float(image[label == value].mean()) for value in label.unique()}


def test_csf_grey_and_white_matter_keep_their_order_and_sides_are_alike():
    data = pair(2, 3, 4, 10, 49, 41, 42, 43)
    transform = plain()
    thalami = []
    for _ in range(10):
        result = transform(data)
        for image in (result["fixed"], result["moving"]):
            mean = means(image, data["label_fixed"])
            assert mean[0] == 0
            assert mean[2] == pytest.approx(255, abs=1e-3)
            for left, right in ((2, 41), (3, 42), (4, 43), (10, 49)):
                assert mean[left] == pytest.approx(mean[right], abs=1e-3)
            # CSF is .1 to .35 of white matter, cortex .4 to .75 of the way between, the thalamus above cortex
            assert 0.1 * 255 < mean[4] < 0.35 * 255
            assert 0.4 < (mean[3] - mean[4]) / (mean[2] - mean[4]) < 0.75
            assert mean[3] < mean[10] < mean[2]
            thalami.append(mean[10])
    assert len(set(np.round(thalami, 1))) == 20, "every image must have a look of its own"


def test_order_survives_noise_bias_and_gamma_in_a_brain(samples):
    label = read_nifti(samples / "brain_synthetic" / "synthetic_20" / "seg.nii.gz", "seg", label=True)
    transform = RandSynthesizeT1d().set_random_state(1)
    result = transform({"label_fixed": label, "label_moving": label})
    for image in (result["fixed"], result["moving"]):
        mean = means(image, label)
        assert mean[4] < mean[3] < mean[2]
        assert image.max() == pytest.approx(255)
        assert torch.equal(image.as_tensor() > 0, label.as_tensor() > 0), "the background must be exactly 0"
        assert skull_complaint(image) == ""
        assert image[label == 2].std() > 5
        torch.testing.assert_close(image.affine, label.affine)
        assert image.meta["filename_or_obj"] == label.meta["filename_or_obj"]
    assert np.corrcoef(result["fixed"].flatten(), result["moving"].flatten())[0, 1] < 0.99


def test_the_random_state_decides():
    data = pair(2, 3, 4)
    first = RandSynthesizeT1d().set_random_state(5)(data)
    second = RandSynthesizeT1d().set_random_state(5)(data)
    other = RandSynthesizeT1d().set_random_state(6)(data)
    for key in ("fixed", "moving"):
        assert torch.equal(first[key], second[key])
        assert not torch.allclose(first[key], other[key])
    assert not torch.allclose(first["fixed"], first["moving"]), "the same label map, yet two images"


def test_with_a_seed_only_the_names_decide():
    transform = RandSynthesizeT1d(seed=7)
    first = transform.set_random_state(1)(pair(2, 3, 4))
    transform(pair(2, 3, 4, names=("/data/c/seg.nii.gz", "/data/d/seg.nii.gz")))
    elsewhere = transform.set_random_state(2)(pair(2, 3, 4, names=("/mnt/a/seg.nii.gz", "/mnt/b/seg.nii.gz")))
    other = transform(pair(2, 3, 4, names=("/data/a/seg.nii.gz", "/data/c/seg.nii.gz")))
    reseeded = RandSynthesizeT1d(seed=8)(pair(2, 3, 4))
    for key in ("fixed", "moving"):
        assert torch.equal(first[key], elsewhere[key])
        assert not torch.allclose(first[key], other[key])
        assert not torch.allclose(first[key], reseeded[key])


def test_what_is_outside_the_brain_goes_and_unknown_ids_stay():
    data = pair(2, 511, 3, 999, 1035, 400)
    result = plain()(data)
    assert result["label_moving"].unique().tolist() == [0, 2, 3, 400, 1035]
    mean = means(result["moving"], data["label_moving"])
    assert mean[511] == mean[999] == 0
    assert mean[1035] == pytest.approx(mean[3], abs=1e-3), "FreeSurfer's cortical parcels are cortex"
    assert 0 < mean[400] <= mean[2]
    assert data["label_moving"].max() == 1035
    assert 511 in data["label_moving"], "the label map as read must not change"


def test_typical_intensities():
    label = without_extracerebral(label_map(2, 3, 4, 13, 511, 77777))
    # pallidum: half-way between 1.5 and 2, that is 3/4 of the way from cortex, 65, to white matter, 100
    assert means(paint_t1(label), label) == {0: 0, 2: 100, 3: 65, 4: 25, 13: 91.25, 77777: 65}


def test_each_label_belongs_to_one_tissue():
    labels = [label for labels, _ in TISSUES.values() for label in labels]
    assert len(labels) == len(set(labels))
