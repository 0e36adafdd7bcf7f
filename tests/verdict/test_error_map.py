"""The expected error: each feature by hand, the table, and what a registration makes of it."""

import json
import math

import numpy as np
import pytest
import torch

from scripts import InputError
from scripts.networks.guidance import GuidanceLayout, Landmarks
from scripts.networks.kernels.filters import gaussian
from scripts.networks.kernels.sampling import warp
from scripts.verdict import ErrorModel, error_features, find_tissue, read_error_model
from scripts.verdict.error_map import FEATURES, halved

from ..conftest import ROOT, blobs

SHIPPED = ROOT / "models" / "verdict.json"


def picture(*shape):
    return torch.from_numpy(blobs(shape) / 1000).float()[None, None]


def features_of(fixed, moving, field, back):
    found = error_features(torch.cat([moving, fixed], 1), field, back)
    return dict(zip(FEATURES, found[0]))


def shift(voxels, *shape):
    field = torch.zeros(1, len(shape), *shape)
    field[:, 0] = voxels
    return field


def test_equal_images_and_no_displacement_by_hand():
    image = picture(20, 18, 16)
    still = shift(0, 20, 18, 16)
    found = features_of(image, image, still, still)
    assert found["mismatch"].exp().max() == pytest.approx(1e-3)
    assert found["inconsistency"].exp().max() == pytest.approx(0.05)
    assert found["displacement"].exp().max() == pytest.approx(0.1)
    assert found["roughness"].exp().max() == pytest.approx(1e-3)
    # 1 - variance / (variance + 1e-4) where the variance is large
    variance = found["contrast"].exp() - 1e-4
    expected = (1e-4 / (variance + 1e-4)).clamp(min=1e-3)
    torch.testing.assert_close(found["disagreement"].exp(), expected, rtol=1e-2, atol=1e-4)


def test_there_and_back_miss_each_other_by_the_sum_of_both_shifts():
    image = picture(20, 18, 16)
    found = features_of(image, image, shift(2, 20, 18, 16), shift(-1.5, 20, 18, 16))
    torch.testing.assert_close(found["inconsistency"].exp(), torch.full((20, 18, 16), 0.55), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["displacement"].exp(), torch.full((20, 18, 16), 2.1), rtol=1e-4, atol=1e-4)


def test_an_edge_in_one_direction_leaves_the_others_open():
    ramp = 0.05 * torch.arange(12.0).view(1, 1, 12, 1, 1).expand(1, 1, 12, 12, 12).clone()
    both = ramp + ramp.transpose(2, 3)
    still = shift(0, 12, 12, 12)
    one, two = (features_of(image, image, still, still)["ambiguity"][6, 6, 6].exp() for image in (ramp, both))
    slope = 0.05**2
    assert one.item() == pytest.approx(1 / (slope + 1e-5) + 2 / 1e-5, rel=1e-3)
    # the two edges are one oblique edge: twice the squared slope along it
    assert two.item() == pytest.approx(1 / (2 * slope + 1e-5) + 2 / 1e-5, rel=1e-3)
    flat = features_of(0 * ramp, 0 * ramp, still, still)["ambiguity"]
    torch.testing.assert_close(flat.exp(), torch.full((12, 12, 12), 3e5), rtol=1e-4, atol=1)


def test_slices_and_an_axis_of_one_voxel_have_finite_features():
    for shape in ((3, 2, 10, 12), (1, 2, 10, 12, 1)):
        dims = len(shape) - 2
        pairs, field = torch.rand(shape), torch.zeros(shape[0], dims, *shape[2:])
        found = error_features(pairs, field, field)
        assert found.shape == (shape[0], len(FEATURES), *shape[2:])
        assert found.isfinite().all()


def test_the_weighted_sum_and_the_table_by_hand():
    weights = [1.0] + [0.0] * (len(FEATURES) - 1) + [0.0] * (len(FEATURES) - 1) + [2.0]
    model = ErrorModel(weights, [0.0, 1.0, 3.0], [0.5, 1.5, 2.5])
    features = torch.zeros(1, len(FEATURES), 2, 2, 1)
    features[0, 0] = torch.tensor([[0.0, 1.0], [2.0, 9.0]])[..., None]
    features[0, -1] = torch.tensor([[0.25, 0.25], [100.0, 100.0]])[..., None]
    tissue = torch.tensor([[True, True], [False, False]])[None, None, ..., None]
    # the mean over the tissue is 0.25, which counts twice: 0.5, 1.5, 2.5 and 9.5
    assert model(features, tissue).flatten().tolist() == [1.0, 1.75, 2.25, 2.5]


@pytest.mark.parametrize(
    ("task", "shape"), [("cardiac", (64, 64)), ("hippocampus", (40, 48, 40)), ("brain", (40, 48, 40))]
)
def test_a_part_that_was_shifted_is_expected_to_be_wrong(task, shape):
    model = read_error_model(SHIPPED, task)
    generator = torch.Generator().manual_seed(0)
    right = (10 if len(shape) == 3 else 4) * gaussian(torch.randn(1, len(shape), *shape, generator=generator), 3)
    image = picture(*shape)
    pairs = torch.cat([image, warp(image, right)], 1)
    pairs = (pairs + 0.03 * torch.randn(pairs.shape, generator=generator)).clamp(0, 1)
    half, wrong = shape[0] // 2, right.clone()
    wrong[:, 0, half:] += 3.0
    tissue = find_tissue(pairs)
    perfect, faulty = (model(error_features(pairs, field, -right), tissue)[0, 0] for field in (right, wrong))
    shifted, kept = faulty[half + 8 :].mean(), faulty[: half - 8].mean()
    assert shifted > 1.5 * perfect[half + 8 :].mean()
    assert shifted > 1.5 * kept


def test_half_as_many_voxels_lie_on_every_second_one():
    image = torch.arange(7.0).view(1, 7, 1, 1).expand(2, 7, 5, 3).clone()
    ddf = torch.full((3, 7, 5, 3), 4.0)
    images, field, affine = halved(image, ddf, torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])).double())
    assert images[0, :, 0, 0].tolist() == [0, 2, 4, 6]
    assert field.shape == (3, 4, 3, 2)
    assert field.unique().tolist() == [2.0]
    assert affine.diagonal().tolist() == [2, 4, 6, 1]


def test_the_sides_are_exchanged_with_all_that_guides():
    points = Landmarks(torch.zeros(1, 3), torch.ones(1, 3), torch.ones(3), torch.zeros(1).long())
    layout = GuidanceLayout(masks=True, contrasts=2, labels=1, landmarks=points)
    image = torch.arange(10.0).view(10, 1, 1, 1)
    other, exchanged = layout.exchange(image)
    assert other.flatten().tolist() == [1, 0, 3, 2, 6, 7, 4, 5, 9, 8]
    assert exchanged.landmarks.fixed.tolist() == [[1, 1, 1]]
    assert exchanged.landmarks.moving.tolist() == [[0, 0, 0]]
    again, same = exchanged.exchange(other)
    assert torch.equal(again, image)
    assert torch.equal(same.landmarks.fixed, points.fixed)


def test_what_was_learned_is_read_and_a_task_without_it_has_none(tmp_path):
    file = tmp_path / "verdict.json"
    known = {"weights": [1.0], "sums": [0.0], "errors": [1.0]}
    file.write_text(json.dumps({"one": {"measures": {}, "error": known}, "two": {"measures": {}}}))
    assert read_error_model(file, "one") == ErrorModel(**known)
    assert read_error_model(file, "two") is None
    assert read_error_model(file, "three") is None
    file.write_text(json.dumps({"one": {"error": {"weight": 1}}}))
    with pytest.raises(InputError, match="cannot be read"):
        read_error_model(file, "one")


@pytest.mark.parametrize("task", ["cardiac", "hippocampus", "brain"])
def test_the_shipped_tables_rise(task):
    model = read_error_model(SHIPPED, task)
    assert len(model.weights) == 2 * len(FEATURES)
    assert (np.diff(model.sums) > 0).all()
    assert (np.diff(model.errors) >= 0).all()
    assert 0 < model.errors[0] < model.errors[-1] < math.inf
