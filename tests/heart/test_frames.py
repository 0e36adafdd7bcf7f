"""The registration of the frames of a cine, and its refinement, where the motion is known."""

import numpy as np
import pytest
import torch

from scripts import Registration
from scripts.heart import read_cine, register_frames
from scripts.heart.frames import periodic
from scripts.heart.refinement import refine

from ..conftest import blobs

SHIFT = torch.tensor([0.8, -0.5])  # voxels
SHAPE = (64, 60)


def waves(shift=(0.0, 0.0)):
    """A texture in the middle that moves by the shift, in [0, 1]."""
    i, j = torch.meshgrid(*(torch.arange(n) - n / 2 for n in SHAPE), indexing="ij")
    i, j = i - shift[0], j - shift[1]
    texture = 0.2 * torch.sin(i / 3) * torch.cos(j / 4) + 0.2 * torch.sin((i + 2 * j) / 5)
    return 0.5 + texture * torch.exp(-(i**2 + j**2) / 20**2)


def test_refinement_finds_a_shift():
    found = refine(waves()[None], waves(SHIFT)[None], torch.zeros(1, 2, *SHAPE), 6)
    error = (found[0] - SHIFT.view(2, 1, 1))[:, 20:-20, 20:-20].abs()
    assert error.mean() < 0.05  # what linear interpolation costs
    assert error.max() < 0.15


def test_refinement_leaves_equal_and_constant_slices_still():
    image = torch.stack([waves(), torch.zeros(SHAPE)])
    assert refine(image, image, torch.zeros(2, 2, *SHAPE), 6).abs().max() < 1e-3


def test_motion_is_limited_to_eight_harmonics():
    t = 2 * np.pi * torch.arange(40) / 40
    low, high = torch.cos(8 * t), torch.cos(9 * t)
    torch.testing.assert_close(periodic((low + high)[:, None]), low[:, None], atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [3, 24])
def test_frames_of_a_moving_heart(save, count):
    """A bright disc in a dark ring, that shrinks by a tenth and grows again; far away, nothing moves."""
    size, center, radius = 96, 48.0, 14.0
    i, j = np.meshgrid(*[np.arange(size) - center] * 2, indexing="ij")
    phases = 0.5 * (1 - np.cos(2 * np.pi * np.arange(count) / count))
    scales = 1 - 0.1 * phases * np.exp(-((i**2 + j**2)[..., None] / 30**2))
    x, y = i[..., None] / scales, j[..., None] / scales  # where each frame takes its values from, nearly
    r = np.hypot(x, y)
    texture = 0.05 * np.sin(x / 2) * np.cos(y / 2)
    frames = 0.5 + 0.4 * np.exp(-((r / 10) ** 4)) - 0.4 * np.exp(-(((r - 14) / 3) ** 2)) + texture
    affine = np.diag([1.5, 1.5, 8, 1])
    label = (np.hypot(i, j) < radius).astype(np.uint8)
    cine = save("cine.nii.gz", frames[:, :, None].astype(np.float32), affine)
    read = read_cine(cine, save("label.nii.gz", label[..., None], affine), 0, {1: "LV"})
    ddf = register_frames(Registration.load("cardiac", refine_steps=0), read, 0)
    assert ddf.shape == (count, 2, size, size, 1)
    middle = count // 2
    ring = abs(np.hypot(i, j) - 11) < 3
    expected = np.stack([i, j])[:, ring] * (scales[ring, middle] - 1)
    error = np.hypot(*(ddf[middle, :, ring, 0].numpy() - expected))
    assert np.hypot(*expected).mean() > 0.7
    assert error.mean() < 0.3  # a ring without texture does not show how it turns


def test_a_blank_cine_slice_does_not_move(save):
    frames = np.stack([blobs((64, 64, 2), seed) for seed in range(3)], -1)
    frames[:, :, 1] = 7
    cine = read_cine(save("cine.nii.gz", frames, np.diag([1.5, 1.5, 8, 1])))
    ddf = register_frames(Registration.load("cardiac", refine_steps=0), cine, 0)
    assert ddf[..., 1].abs().max() < 1e-5
    assert ddf[..., 0].abs().max() > 0.1


def test_the_refinement_of_the_network_does_not_count(save):
    frames = np.stack([blobs((64, 64, 2), seed) for seed in range(3)], -1)
    cine = read_cine(save("cine.nii.gz", frames, np.diag([1.5, 1.5, 8, 1])))
    registration = Registration.load("cardiac")
    found = register_frames(registration, cine, 0)
    assert torch.equal(found, register_frames(Registration.load("cardiac", refine_steps=0), cine, 0))
    assert registration.network.num_repeats == (3, 3, 1, 8)
    classical = Registration.classical(2)  # all of its steps are of this kind
    assert classical.without_refinement().network is classical.network
