"""Masks, contrasts, labels and landmarks in the steps of the network."""

import pytest
import torch

from scripts.networks import LNCC, Demons, GraDIRN
from scripts.networks.guidance import GuidanceLayout, Landmarks
from scripts.networks.kernels.filters import extend
from scripts.networks.similarity import SIMILARITIES, get_similarity

from .test_gradirn import smooth_image


def demons(num_repeats=(4, 4), similarity=None):
    step = Demons(similarity or LNCC(5), smoothing=1.0)
    net = GraDIRN(2, (1, 1), num_repeats, step, None, "compose", ddf_smoothing=0.5)
    for blocks in net.levels:
        for block in blocks:
            block.step_size.data.fill_(0.2)  # tau 2
    return net


def half_plane(size, border):
    """1 before a place on the second axis, falling to 0 within three voxels."""
    line = (border - torch.arange(float(size[1]))).div(6).add(0.5).clamp(0, 1)
    return line.expand(1, 1, *size).clone()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_derivative_in_a_mask_is_that_of_the_masked_energy(name):
    torch.manual_seed(0)
    similarity = get_similarity(name, 3)
    fixed, warped = (similarity.describe(torch.rand(2, 1, 9, 8, dtype=torch.float64)) for _ in range(2))
    weight = (torch.rand(2, 1, 9, 8, dtype=torch.float64) > 0.4).double()
    warped.requires_grad_()
    (expected,) = torch.autograd.grad(similarity.energy(fixed, warped, weight).sum(), warped)
    torch.testing.assert_close(similarity.derivative(fixed, warped.detach(), weight), expected)
    full = torch.ones_like(weight)
    for masked, plain in zip(similarity.residual(fixed, warped, full), similarity.residual(fixed, warped)):
        torch.testing.assert_close(*torch.broadcast_tensors(masked, plain))


def test_a_field_is_continued_into_a_hole_and_stays_elsewhere():
    weight = torch.ones(2, 1, 17, 12)
    weight[0, :, 5:12, 3:9] = 0
    weight[1] = 0
    field = torch.rand(2, 2, 17, 12)
    field[0, 0] = 3.0  # constant but for what lies in the hole
    field[0, 0, 6:11, 4:8] = 1e6
    result = extend(field, weight)
    torch.testing.assert_close(result[0, 0], torch.full((17, 12), 3.0))
    torch.testing.assert_close(result[0] * weight[0], field[0] * weight[0])
    assert torch.equal(result[1], torch.zeros(2, 17, 12))


def test_what_lies_outside_of_the_masks_does_not_matter():
    image = torch.cat([smooth_image((24, 20)), smooth_image((24, 20), seed=1)], 1)
    masks = torch.ones(1, 2, 24, 20)
    masks[:, 1, 8:15, 6:12] = 0  # of the fixed image, and by it of what is compared there
    other = image.clone()
    other[:, 1, 8:15, 6:12] = 0.3
    layout = GuidanceLayout(masks=True)
    net = demons((0, 6))  # on the full grid alone: coarser ones mix both sides
    found, again = (net(torch.cat([x, masks], 1), layout) for x in (image, other))
    torch.testing.assert_close(found, again)
    assert (net(other) - net(image)).abs().max() > 0.05
    everything = net(torch.cat([image, torch.ones(1, 2, 24, 20)], 1), layout)
    torch.testing.assert_close(everything, net(image), atol=1e-4, rtol=0)


def test_a_second_contrast_moves_what_the_first_one_does_not_show():
    flat = torch.full((1, 1, 20, 24), 0.5)
    contrasts = [half_plane((20, 24), 13.0), half_plane((20, 24), 11.0)]  # moving, fixed: moving(x + 2) = fixed(x)
    net = demons(similarity="ssd")
    assert net(torch.cat([flat, flat], 1)).abs().max() == 0
    ddf = net(torch.cat([flat, flat, *contrasts], 1), GuidanceLayout(contrasts=1))
    assert ddf[0, 1, 5:15, 11].mean().item() == pytest.approx(2, abs=0.1)
    assert ddf[0, 0].abs().max() < 0.05


def test_labels_bring_their_borders_together():
    flat = torch.full((1, 1, 20, 24), 0.5)
    labels = [half_plane((20, 24), 14.5), half_plane((20, 24), 11.0)]
    ddf = demons()(torch.cat([flat, flat, *labels], 1), GuidanceLayout(labels=1))
    assert ddf[0, 1, :, 11].mean().item() == pytest.approx(3.5, abs=0.1)


def test_landmarks_are_brought_together_each_in_its_own_sample():
    steps = torch.tensor([19.0, 23.0])
    fixed = torch.tensor([[9.0, 11.0], [4.25, 17.5]])
    shift = torch.tensor([[2.0, -1.0], [-0.5, 1.5]])
    landmarks = Landmarks(fixed / steps, (fixed + shift) / steps, 3 / steps, torch.tensor([0, 2]))
    ddf = landmarks.correct(torch.zeros(3, 2, 20, 24))
    torch.testing.assert_close(ddf[0, :, 9, 11], shift[0], atol=0.02, rtol=0)
    between = torch.lerp(ddf[2, :, 4, 17:19].mean(1), ddf[2, :, 5, 17:19].mean(1), 0.25)  # of (4.25, 17.5)
    torch.testing.assert_close(between, shift[1], atol=0.03, rtol=0)
    assert torch.equal(ddf[1], torch.zeros(2, 20, 24))
    assert ddf[0, :, 0, 0].norm() < 0.01  # far away nothing happens
    second = landmarks.select(1, 2)
    assert second.samples.tolist() == [1]
    torch.testing.assert_close(second.fixed, fixed[1:] / steps)
    image = torch.rand(3, 2, 20, 24) * 0.01
    found = demons((2, 2))(image, GuidanceLayout(landmarks=landmarks))
    torch.testing.assert_close(found[0, :, 9, 11], shift[0], atol=0.1, rtol=0)


def test_the_memory_of_the_channels_is_estimated():
    net = demons()
    assert net.evaluation_bytes((10, 10), 4) == net.evaluation_bytes((10, 10)) + 16 * 4 * 100
