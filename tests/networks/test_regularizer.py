"""The CNN of the regularizer, plain and fused."""

import pytest
import torch

from scripts.networks import regularizer
from scripts.networks.regularizer import Regularizer


@pytest.mark.parametrize("dims", [2, 3])
def test_five_convolutions_by_hand(dims):
    net = Regularizer(dims, in_channels=dims + 2)
    shapes = [(conv.in_channels, conv.out_channels, *conv.kernel_size) for conv in net.convs]
    cube = (3,) * dims
    assert shapes == [(dims + 2, 32, *cube), *[(32, 32, *cube)] * 3, (32, dims, *cube)]
    # He-uniform for LeakyReLU(0.2): bound sqrt(6 / (1 + 0.04) / fan_in), reached by thousands of draws
    weight = net.convs[1].weight
    bound = (6 / 1.04 / (32 * 3**dims)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert all((conv.bias == 0).all() for conv in net.convs)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_fused_path_and_the_plain_one_agree(dims, monkeypatch):
    torch.manual_seed(0)
    net, x = Regularizer(dims, in_channels=4), torch.randn(2, 4, *[9, 7, 8][:dims])
    with torch.inference_mode():
        fused = net(x)
        monkeypatch.setattr(regularizer, "_can_fuse", lambda *_: False)
        plain = net(x)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net(x).detach(), plain, atol=1e-5, rtol=1e-4)


def test_a_build_without_the_operator_takes_the_plain_path(monkeypatch):
    def missing(*_):
        raise NotImplementedError

    monkeypatch.setattr(regularizer, "_fused_convolution", missing)
    regularizer._fused_convolution_works.cache_clear()
    try:
        with torch.no_grad():
            assert Regularizer(2, in_channels=4)(torch.rand(1, 4, 8, 8)).shape == (1, 2, 8, 8)
    finally:
        regularizer._fused_convolution_works.cache_clear()
