"""Each measure by hand, on images and displacements for which it is known."""

import math

import pytest
import torch

from scripts.verdict import find_evidence
from scripts.verdict.evidence import agreement

from ..conftest import blobs


def picture(*shape):
    return torch.from_numpy(blobs(shape)).float()[None, None]


def everywhere(image):
    return torch.ones_like(image, dtype=torch.bool)


def image_of(fixed, moving):
    return torch.cat([moving[0], fixed[0]])


def test_agreement_of_an_image_with_itself_its_inverse_and_a_flatter_one():
    image = picture(16, 18, 14)
    assert agreement(image, image, everywhere(image)) == pytest.approx(1, abs=1e-4)
    assert agreement(image, 1 - image, everywhere(image)) == pytest.approx(-1, abs=1e-4)
    # covariance v / 2 over the larger variance v, whichever of the two it is
    assert agreement(image, image / 2, everywhere(image)) == pytest.approx(0.5, abs=1e-4)
    assert agreement(image / 2, image, everywhere(image)) == pytest.approx(0.5, abs=1e-4)


def test_agreement_with_noise_is_small_and_with_nothing_zero():
    image = picture(20, 20, 20)
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    assert abs(agreement(image, noise, everywhere(image))) < 0.1
    assert agreement(image, torch.zeros_like(image), everywhere(image)) == 0
    assert math.isnan(agreement(torch.zeros_like(image), torch.ones_like(image), everywhere(image)))


def test_a_shift_and_a_scaling():
    image = picture(16, 18, 14)[0, 0]
    pair = torch.stack([image, image]).clamp(min=0.1)
    shift = torch.zeros(3, *image.shape)
    shift[1] = -2.0
    found = find_evidence(pair, shift, 3)
    assert found["displacement"] == pytest.approx(2)
    assert found["irregularity"] == pytest.approx(0, abs=1e-6)
    places = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in image.shape], indexing="ij"))
    found = find_evidence(pair, -0.1 * places, 3)  # |J| = 0.9 ** 3
    assert found["compression"] == pytest.approx(3 * math.log(0.9), abs=1e-4)
    assert found["irregularity"] == pytest.approx(0, abs=1e-3)


def test_a_flipped_image_fits_better_in_the_other_orientation():
    image = picture(16, 20, 24)
    ddf = torch.zeros(3, 16, 20, 24)
    upright = find_evidence(image_of(image, image), ddf, 3)["other_orientation"]
    flipped = find_evidence(image_of(image, image.flip(3)), ddf, 3)["other_orientation"]
    assert upright < -0.05  # the correlation is 1 as it is, and below with any flip
    assert flipped == pytest.approx(-upright, abs=1e-5)


def test_slices_of_a_stack_are_images_of_their_own():
    image = picture(16, 18, 3)
    ddf = torch.zeros(3, 16, 18, 3)
    ddf[2] = 5  # through the planes, which a 2D network does not know
    found = find_evidence(image_of(image, image), ddf, 2)
    assert found["displacement"] == 0
    assert found["agreement"] == pytest.approx(1, abs=1e-4)


def test_a_large_volume_is_looked_at_in_blocks():
    image = torch.zeros(1, 1, 160, 128, 128)
    image[..., 40:100, 30:90, 20:80] = 1
    ddf = torch.zeros(3, 160, 128, 128)
    ddf[0] = 4.0
    assert find_evidence(image_of(image, image), ddf, 3)["displacement"] == pytest.approx(2)  # blocks of 2 voxels


def test_an_empty_pair_has_no_evidence():
    assert find_evidence(torch.zeros(2, 8, 8, 8), torch.zeros(3, 8, 8, 8), 3) == {}


def test_of_a_large_stack_some_slices_are_looked_at():
    image = picture(16, 18, 1)
    stack = image_of(image, image).repeat(1, 32, 32, 9)  # 512 x 576 x 9 voxels: every second slice
    ddf = torch.zeros(3, *stack.shape[1:])
    ddf[0, ..., 0::2] = 3.0
    ddf[0, ..., 1::2] = 50.0
    assert find_evidence(stack, ddf, 2)["displacement"] == 3
