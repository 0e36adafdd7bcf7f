"""The baseline behind our interface."""

import pytest
import torch
from monai.networks.blocks import Warp

from scripts.networks import VoxelMorph
from scripts.support.errors import InputError


@pytest.mark.parametrize("size", [(32, 24), (37, 21), (16, 24, 19)])
def test_it_starts_from_next_to_no_displacement_at_any_size(size):
    net = VoxelMorph(len(size))
    ddf = net(torch.rand(2, 2, *size))
    assert ddf.shape == (2, len(size), *size)
    assert 0 < ddf.abs().max() < 1e-3


def test_moving_is_channel_0_and_the_field_is_monais():
    torch.manual_seed(0)
    net = VoxelMorph(2)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    image = torch.rand(1, 2, 32, 32)
    warped, ddf = net.net(image[:, :1], image[:, 1:])
    torch.testing.assert_close(net(image), ddf)
    torch.testing.assert_close(Warp(padding_mode="zeros")(image[:, :1], net(image)), warped)


def test_it_learns_a_shift():
    torch.manual_seed(0)
    net = VoxelMorph(2)
    coarse = torch.rand(1, 1, 6, 6)
    moving = torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bilinear", align_corners=True)
    image = torch.cat([moving, moving.roll(-2, 2)], 1)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(80):
        optimizer.zero_grad()
        error = (Warp(padding_mode="border")(moving, net(image)) - image[:, 1:])[:, :, :20].square().mean()
        error.backward()
        optimizer.step()
    assert net(image)[0, 0, 6:18, 6:18].mean().item() == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 2, 32), (1, 2, 16, 16, 16)])
def test_a_wrong_shape(shape):
    with pytest.raises(InputError, match=r"image must have shape \(B, 2, H, W\)"):
        VoxelMorph(2)(torch.rand(shape))
    with pytest.raises(InputError, match="spatial_dims must be 2 or 3, got 4"):
        VoxelMorph(4)
