"""A stack is a batch of slices; what does not fit into memory goes in parts, or at half the resolution."""

import logging

import pytest
import torch

from scripts.networks import Demons, GraDIRN, initialise
from scripts.networks.kernels.sampling import resize
from scripts.registration.inferer import GIB, RegistrationInferer
from scripts.support.errors import InputError


class Recorder(torch.nn.Module):
    """A network that asks for 100 bytes a voxel, moves everything by one voxel, and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def evaluation_bytes(self, size):
        return 100 * torch.Size(size).numel()

    def forward(self, image):
        self.seen.append(image)
        return torch.ones_like(image[:, :1]).expand(-1, image.ndim - 2, *image.shape[2:])


def test_a_2d_network_registers_each_slice_by_itself():
    torch.manual_seed(0)
    net = GraDIRN(2)
    stack = torch.rand(1, 2, 16, 12, 3)
    with torch.no_grad():
        ddf = RegistrationInferer(2)(stack, net)
        single = net(stack[..., 1])
    assert ddf.shape == (1, 3, 16, 12, 3)
    assert (ddf[:, 2] == 0).all()
    torch.testing.assert_close(ddf[:, :2, :, :, 1], single, rtol=1e-3, atol=1e-3)


def test_a_3d_network_and_2d_images_pass_straight_through():
    with torch.no_grad():
        assert RegistrationInferer(3)(torch.rand(1, 2, 8, 8, 8), GraDIRN(3)).shape == (1, 3, 8, 8, 8)
        assert RegistrationInferer(2)(torch.rand(2, 2, 8, 9), GraDIRN(2)).shape == (2, 2, 8, 9)


@torch.no_grad()
def test_slices_that_do_not_fit_together_go_in_parts():
    net = Recorder()
    stack = torch.rand(1, 2, 6, 5, 7)
    ddf = RegistrationInferer(2, memory_limit=3.5 * 100 * 30 / GIB)(stack, net)
    assert [len(part) for part in net.seen] == [3, 3, 1]
    assert torch.equal(torch.cat(net.seen), stack[0].movedim(-1, 0))
    assert ddf.shape == (1, 3, 6, 5, 7)


@torch.no_grad()
def test_a_volume_that_does_not_fit_is_registered_at_half_the_resolution(caplog):
    net = Recorder()
    image = torch.rand(1, 2, 9, 8, 6)
    with caplog.at_level(logging.WARNING):
        ddf = RegistrationInferer(3, memory_limit=100 * 60 / GIB)(image, net)
    assert "registered at half the resolution, (5, 4, 3)" in caplog.text
    torch.testing.assert_close(net.seen[0], resize(image, (5, 4, 3)))
    torch.testing.assert_close(ddf, torch.full((1, 3, 9, 8, 6), 2.0))  # one voxel there is two here


def explicit():
    return initialise(GraDIRN(3, [1, 1], [1, 2], Demons("ssd", smoothing=1.0), None, "compose"), taus=1.0)


@torch.no_grad()
def test_a_fine_pair_is_registered_at_half_its_resolution_and_then_on_its_grid():
    torch.manual_seed(0)
    image, net = torch.rand(1, 2, 9, 11, 13), explicit()
    coarse = net(image[:, :, ::2, ::2, ::2])
    expected = net.fine_steps(image, coarse, 2)
    torch.testing.assert_close(RegistrationInferer(3, fine_steps=2)(image, net, fine=True), expected)
    without = RegistrationInferer(3)(image, net, fine=True)
    torch.testing.assert_close(without[:, :, ::2, ::2, ::2], 2 * coarse)  # in voxels of half the side


@torch.no_grad()
def test_a_fine_pair_without_the_memory_stays_at_the_resolution_of_the_network(caplog):
    image, net = torch.rand(1, 2, 9, 11, 13), explicit()
    limit = net.evaluation_bytes((9, 11, 12)) / GIB
    with caplog.at_level(logging.WARNING):
        found = RegistrationInferer(3, memory_limit=limit, fine_steps=2)(image, net, fine=True)
    assert "registered at half the resolution, (5, 6, 7)" in caplog.text
    assert torch.equal(found, RegistrationInferer(3)(image, net, fine=True))


@torch.no_grad()
def test_a_network_without_fine_steps_sees_a_fine_pair_at_half_its_resolution():
    net = Recorder()
    ddf = RegistrationInferer(3, fine_steps=3)(torch.rand(1, 2, 9, 7, 5), net, fine=True)
    assert [tuple(seen.shape[2:]) for seen in net.seen] == [(5, 4, 3)]
    torch.testing.assert_close(ddf, torch.full((1, 3, 9, 7, 5), 2.0))


def test_fine_steps_are_a_whole_number():
    with pytest.raises(InputError, match="--fine_steps is '1.5'"):
        RegistrationInferer(3, fine_steps=1.5)


def test_training_is_never_split():
    net = Recorder()
    RegistrationInferer(3, memory_limit=1e-9)(torch.rand(2, 2, 8, 8, 8), net)
    assert [tuple(batch.shape) for batch in net.seen] == [(2, 2, 8, 8, 8)]


def test_the_estimate_counts_convolutions_or_an_interpolation():
    # 2 * 32 channels, 2 images and 3 * 3 values
    # 3 positions, an index and its base, 8 corners of 3 values, 6 derivatives
    assert GraDIRN(3).evaluation_bytes((10, 10, 10)) == 1000 * (4 * (64 + 2 + 9))
    no_cnn = GraDIRN(3, regularizer=None).evaluation_bytes((10, 10, 10))
    assert no_cnn == 1000 * (4 * (2 + 9) + 3 * 12 + 2 * 8 + 4 * (8 * 3 + 6))
    assert GraDIRN(3, (1, 1, 0), (1, 1, 0)).evaluation_bytes((10, 10, 10)) == 1000 * (4 * (64 + 2 + 9)) // 8


@torch.no_grad()
@torch.no_grad()
def test_where_an_image_is_constant_nothing_moves():
    image = torch.rand(2, 2, 6, 5, 4)
    image[0, 0, :, :, 1] = 0.3  # the moving image of one slice
    image[1, 1, :, :, 2] = 0  # the fixed one of another
    ddf = RegistrationInferer(2)(image, Recorder())
    expected = torch.ones(2, 3, 6, 5, 4)
    expected[:, 2] = expected[0, :, :, :, 1] = expected[1, :, :, :, 2] = 0
    assert torch.equal(ddf, expected)
    image[1, 0] = 1
    assert torch.equal(
        RegistrationInferer(3)(image, Recorder()),
        torch.tensor([1.0, 0]).view(2, 1, 1, 1, 1) * torch.ones(2, 3, 6, 5, 4),
    )
