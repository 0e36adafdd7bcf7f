"""The extraction of brains from heads."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter

from scripts.images import extraction
from scripts.images.extraction import ExtractBrainsd, brain_transforms, extract_brain
from scripts.images.loading import read_nifti
from scripts.support.errors import InputError

from ..conftest import load_json


@pytest.fixture
def head(samples):
    """A shipped synthetic brain within a dark skull and bright skin, and where the brain is."""
    brain = read_nifti(samples / "brain_synthetic" / "synthetic_19" / "t1.nii.gz", "brain")
    values = brain.as_tensor()[0].numpy()
    inside = binary_fill_holes(values > 0)
    skull, skin = binary_dilation(inside, iterations=3), binary_dilation(inside, iterations=6)
    random = np.random.default_rng(0)
    whole = values + 30 * (skull & ~inside) + 180 * (skin & ~skull) + random.uniform(0, 8, values.shape)
    image = MetaTensor(torch.from_numpy(gaussian_filter(whole, 0.5).astype(np.float32))[None], affine=brain.affine)
    image.meta["filename_or_obj"] = "head.nii.gz"
    return image, inside


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.slow
def test_the_brain_of_a_head_is_found_and_the_rest_removed(head, caplog):
    pytest.importorskip("deepbet", reason="deepbet is not installed")
    image, inside = head
    result = ExtractBrainsd(["fixed", "moving"])({"fixed": image, "moving": image})
    found = result["brain_mask_fixed"][0].numpy() > 0
    assert caplog.records[0].getMessage().startswith("fixed: head.nii.gz does not look skull-stripped: ")
    assert caplog.records[0].getMessage().endswith(f"Its brain was extracted, {found.sum() * 8e-6:.1f} litres.")
    assert dice(found, inside) > 0.9
    outside = result["fixed"][0].numpy()[~found]
    assert (outside == result["fixed"].min().item()).all()
    assert np.array_equal(result["fixed"][0].numpy()[found], image[0].numpy()[found])
    assert torch.equal(result["brain_mask_fixed"], result["brain_mask_moving"]), "the same image gives the same mask"


def test_a_mask_of_the_users_own_is_taken(head, save):
    image, inside = head
    mask = save("mask.nii.gz", inside.astype(np.uint8), image.affine.numpy())
    data = {"fixed": image, "moving": image, "brain_mask_moving": mask}
    result = ExtractBrainsd(["fixed", "moving"], mode=False)(data)
    assert result["fixed"] is image
    assert "brain_mask_fixed" not in result
    assert (result["moving"][0].numpy()[~inside] == image[0].numpy()[inside].min()).all()
    assert np.array_equal(result["moving"][0].numpy()[inside], image[0].numpy()[inside])
    empty = save("empty.nii.gz", np.zeros(image.shape[1:], np.uint8), image.affine.numpy())
    with pytest.raises(InputError, match=r"brain_mask_moving: .*empty.nii.gz marks no voxel"):
        ExtractBrainsd("moving", mode=False)({**data, "brain_mask_moving": empty})


def test_a_brain_without_skull_is_left_alone(samples, monkeypatch):
    monkeypatch.setattr(extraction, "HAS_DEEPBET", True)
    monkeypatch.setattr(extraction, "find_brain", None)
    brain = read_nifti(samples / "brain_synthetic" / "synthetic_19" / "t1.nii.gz", "brain")
    image, mask = extract_brain(brain, "fixed")
    assert image is brain
    assert mask is None


def test_what_has_no_brain_is_said_and_registered_as_it_is(head, monkeypatch, caplog):
    monkeypatch.setattr(extraction, "HAS_DEEPBET", True)
    monkeypatch.setattr(extraction, "find_brain", lambda image: (None, 0.08))
    image, _ = head
    found, mask = extract_brain(image, "moving")
    assert found is image
    assert mask is None
    assert "moving: head.nii.gz: no brain was found in it: found 0.08 litres, expected 0.3 to 2.6." in caplog.text


def test_without_deepbet_one_line_says_what_to_install(head, monkeypatch, caplog):
    monkeypatch.setattr(extraction, "HAS_DEEPBET", False)
    image, _ = head
    data = {"fixed": image, "moving": image}
    for transform in brain_transforms():
        data = transform(data)
    assert data["fixed"] is image
    assert caplog.records[0].getMessage().endswith("To extract the brains: pip install -r requirements-brain.txt.")
    with pytest.raises(
        InputError, match="needs deepbet, which is not installed: pip install -r requirements-brain.txt"
    ):
        brain_transforms(brain_extraction="true")
    with pytest.raises(InputError, match="--brain_extraction is 'maybe': expected true or false"):
        brain_transforms(brain_extraction="maybe")


def test_the_bias_field_is_corrected_where_it_is_strong(samples):
    brain = read_nifti(samples / "brain_synthetic" / "synthetic_19" / "t1.nii.gz", "brain")
    correct = brain_transforms(bias_correction="auto")[1]
    assert correct({"fixed": brain, "moving": brain})["fixed"] is brain
    ramp = torch.linspace(0.6, 1.8, brain.shape[1]).view(1, -1, 1, 1)
    biased = MetaTensor(brain.as_tensor() * ramp, meta=brain.meta)
    assert correct({"fixed": biased, "moving": brain})["fixed"].meta["bias_corrected"]


@pytest.mark.slow
def test_a_head_in_one_command_is_registered_as_its_brain(head, infer, save, samples, tmp_path):
    pytest.importorskip("deepbet", reason="deepbet is not installed")
    image, inside = head
    affine = image.affine.numpy().copy()
    fixed = save("fixed.nii.gz", image[0].numpy(), affine)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]  # 23 degrees about the vertical axis
    turn[:3, 3] = (12, -9, 15)
    files = {"fixed": fixed, "moving": save("moving.nii.gz", image[0].numpy(), turn @ affine)}
    labels = samples / "brain_synthetic" / "synthetic_19" / "seg.nii.gz"
    label = read_nifti(labels, "label", label=True)[0].numpy().astype(np.int16)
    files |= {"label_fixed": save("lf.nii.gz", label, affine), "label_moving": save("lm.nii.gz", label, turn @ affine)}
    infer("brain", **files, outputs=["alignment", "brain_mask_moving"], output_dir=str(tmp_path / "out"))
    metrics = load_json(tmp_path / "out" / "metrics.json")
    assert (tmp_path / "out" / "alignment.mat").is_file()
    assert metrics["dice"]["after"]["mean"] > 0.95
    assert dice(read_nifti(tmp_path / "out" / "brain_mask_moving.nii.gz", "mask")[0].numpy() > 0, inside) > 0.9
