"""The CNN of the regularizer."""

import pytest
import torch

from scripts.networks.kernels import convolution
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
        monkeypatch.setattr(convolution, "_has_fused_convolution", lambda *_: False)
        plain = net(x)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net(x).detach(), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(75, 6), (32, 7), (33, 4, 5), (6, 5, 4)])
def test_parts_equal_the_whole_and_keep_only_the_input(size):
    torch.manual_seed(0)
    dims = len(size)
    whole = Regularizer(dims, in_channels=4, num_channels=6).double()
    parts = Regularizer(dims, in_channels=4, num_channels=6, checkpoint=True).double()
    parts.load_state_dict(whole.state_dict())
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(whole(x).square().sum(), [x, *whole.parameters()])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        parts(x)
    assert {tensor.untyped_storage().data_ptr() for tensor in kept} == {x.untyped_storage().data_ptr()}
    found = torch.autograd.grad(parts(*x.split([3, 1], dim=1)).square().sum(), [x, *parts.parameters()])
    for one, other in zip(expected, found):
        torch.testing.assert_close(one, other)
