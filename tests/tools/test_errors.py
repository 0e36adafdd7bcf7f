"""What the expected errors are learned from: synthetic deformations, the regression and its table."""

import numpy as np
import pytest
import torch

from scripts.networks.kernels.sampling import warp
from scripts.tools import errors as tool
from scripts.tools.errors import Deformation, Sample, _middle, draw, images_of, learn
from scripts.tools.verdicts import Pair
from scripts.verdict.error_map import FEATURES

from ..conftest import blobs


def images(*shape):
    return torch.from_numpy(blobs(shape) / 1000).float()[:, None]


@pytest.mark.parametrize("shape", [(3, 24, 20), (1, 20, 18, 16)])
def test_a_synthetic_pair_is_one_image_and_the_same_one_deformed(monkeypatch, shape):
    monkeypatch.setattr(tool, "NOISE", (0.0, 0.0))
    monkeypatch.setattr(tool, "GAMMA", (1.0, 1.0))
    image = images(*shape)
    pairs, field = draw(image, Deformation((2, 2), (3, 4)), np.random.default_rng(0))
    torch.testing.assert_close(pairs[:, :1], image)
    torch.testing.assert_close(pairs[:, 1:], warp(image, field))
    lengths = field.square().sum(1).sqrt().flatten(1).numpy()
    np.testing.assert_allclose(np.percentile(lengths, 95, axis=1), 2, rtol=1e-5)


def test_draws_repeat_and_noise_stays_out_of_the_background():
    image = images(1, 20, 18, 16)
    image[:, :, :5] = 0
    deformation = Deformation((1, 4), (3, 6))
    first, second = (draw(image, deformation, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert (first[0][:, 0, :5] == 0).all()
    assert not torch.equal(first[0][:, :1], image)
    assert not torch.equal(first[0], draw(image, deformation, np.random.default_rng(8))[0])


def samples():
    """Pairs whose error is the exponential of the third feature and of the mean of the last one."""
    random = np.random.default_rng(0)
    for n in range(40):
        values = torch.from_numpy(random.normal(size=(2000, len(FEATURES)))).float()
        values[:, -1] += n / 20
        means = values.mean(0)
        yield Sample(values, means, (values[:, 2] + means[-1]).exp())


def test_the_feature_that_tells_is_the_one_that_is_learned_and_the_table_is_calibrated():
    known = list(samples())
    model = learn(known)
    own, of_means = np.split(np.abs(model.weights), 2)
    assert own.argmax() == 2
    assert of_means.argmax() == len(FEATURES) - 1
    expected = torch.cat([model.look_up(model.total(s.features, s.means)) for s in known])
    true = torch.cat([s.errors for s in known])
    assert expected.mean().item() == pytest.approx(true.mean().item(), rel=0.05)
    middle = (true > 1) & (true < 10)
    torch.testing.assert_close(expected[middle], true[middle], rtol=0.3, atol=0.3)
    lines = tool.test(known, model).splitlines()
    ranks = [float(cell) for cell in lines[2].split("|")[2:5]]
    assert min(ranks) > 0.98
    assert abs(float(lines[4].split("|")[2])) < 0.1  # one that says nothing of the error


def test_every_image_is_taken_once(tmp_path):
    files = [tmp_path / f"{n}.nii.gz" for n in range(3)]
    pairs = [Pair("", files[n], files[(n + k) % 3], files[0], files[0]) for n in range(3) for k in (1, 2)]
    assert sorted(images_of(pairs)) == files


def test_the_middle_of_a_large_volume_is_measured_without_its_border():
    places = torch.arange(70.0).view(1, 1, 70, 1, 1).expand(1, 2, 70, 64, 5)
    pairs, field, inside = _middle(places, places[:, :1].expand(1, 3, 70, 64, 5))
    assert pairs.shape == (1, 2, 64, 64, 5)
    assert torch.equal(field[:, :2], pairs)
    assert pairs[0, 0, [0, -1], 0, 0].tolist() == [3, 66]
    assert inside[0, 0].sum() == 56 * 64 * 5  # the second axis is whole
    slices = torch.rand(3, 2, 80, 80)
    assert torch.equal(_middle(slices, slices)[0], slices)


def test_what_only_one_subject_has_is_in_both_images(monkeypatch):
    monkeypatch.setattr(tool, "NOISE", (0.0, 0.0))
    monkeypatch.setattr(tool, "GAMMA", (1.0, 1.0))
    image = torch.full((1, 1, 24, 24, 24), 0.5)
    pairs, _ = draw(image, Deformation((1, 1), (3, 3), 0.1), np.random.default_rng(0))
    moving, fixed = (part.flatten() for part in pairs[0])
    assert 0 < moving.std() <= 0.11
    assert abs(np.corrcoef(moving, fixed)[0, 1]) < 0.2
