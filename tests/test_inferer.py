"""A stack is a batch of slices."""

import torch

from scripts.inferer import RegistrationInferer
from scripts.networks import GraDIRN


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
