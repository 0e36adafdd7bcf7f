"""A stack is a batch of slices; what does not fit into memory goes in parts, or at half the resolution."""

import logging

import torch

from scripts.networks import GraDIRN
from scripts.networks.kernels.sampling import resize
from scripts.registration.inferer import GIB, RegistrationInferer


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
