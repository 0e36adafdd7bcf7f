"""The gradients of the regularizer's convolutions, what a training keeps of them, and which operators compute them."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from scripts.networks.kernels import convolution
from scripts.networks.regularizer import Regularizer


def plain(net):
    """The same layers as torch has them, in double precision."""
    layers = []
    for conv in net.convs:
        twin = type(conv)(conv.in_channels, conv.out_channels, 3, padding=1)
        twin.load_state_dict(conv.state_dict())
        layers += [twin, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1]).double()


def gradients(net, x):
    """Of a loss that weighs each voxel differently, by input and parameters."""
    x = x.detach().clone().requires_grad_()
    result = net(x)
    weights = torch.linspace(-1, 1, result.numel(), dtype=torch.float64).view_as(result).to(result.dtype)
    return torch.autograd.grad((result * weights).sum(), [x, *net.parameters()])


# 6 layers pair up in a volume, 5 leave the last one alone
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("layers", [2, 5, 6])
@pytest.mark.parametrize("size", [(1, 9, 7), (2, 9, 7), (1, 7, 6, 5), (2, 7, 6, 5), (1, 40, 3, 4)])
def test_gradients_equal_those_of_plain_layers(size, layers, checkpoint):
    torch.manual_seed(0)
    dims = len(size) - 1
    net = Regularizer(dims, in_channels=4, num_channels=32, num_layers=layers, checkpoint=checkpoint)
    x = torch.randn(size[0], 4, *size[1:])
    for found, expected in zip(gradients(net, x), gradients(plain(net), x.double())):
        assert (found - expected).norm() < 2e-6 * expected.norm()


@pytest.mark.parametrize("size", [(2, 9, 7), (1, 7, 6, 5)])
def test_half_precision_costs_no_more_than_in_plain_layers(size):
    torch.manual_seed(0)
    net, x = Regularizer(len(size) - 1, in_channels=4), torch.randn(size[0], 4, *size[1:])
    exact = gradients(plain(net), x.double())
    with torch.autocast("cpu", torch.bfloat16):
        ours, plains = gradients(net, x), gradients(plain(net).float(), x)
    for our, other, expected in zip(ours, plains, exact):
        assert our.dtype == torch.float32
        assert 0 < (our - expected).norm() < 1.5 * (other - expected).norm()


@pytest.mark.parametrize(("dims", "half", "hidden"), [(2, False, 4), (3, False, 2), (2, True, 4), (3, True, 4)])
def test_a_volume_in_float32_keeps_every_second_activation(dims, half, hidden):
    net, x = Regularizer(dims, in_channels=4), torch.randn(1, 4, *[12] * dims)
    kept = {}

    def keep(tensor):
        if tensor.ndim == dims + 2 and tensor.shape[1] == 32 and tensor.shape[2] == 12:
            kept[tensor.untyped_storage().data_ptr()] = tensor.element_size()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
        net(x)
    assert list(kept.values()) == [2 if half else 4] * hidden


def test_small_volumes_are_registered_by_the_fused_operator_alone():
    net, x = Regularizer(3, in_channels=5, num_channels=16), torch.rand(1, 5, 8, 8, 8)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as found:
        net(x)
    convolutions = {event.key for event in found.key_averages() if "conv" in event.key}
    assert "mkldnn::_convolution_pointwise" in convolutions
    assert not any("slow_conv" in name for name in convolutions)


def test_a_build_without_the_operator_takes_the_plain_path(monkeypatch):
    def missing(*_):
        raise NotImplementedError

    monkeypatch.setattr(convolution, "_fused_convolution", missing)
    convolution._try_fused_convolution.cache_clear()
    try:
        with torch.no_grad():
            assert Regularizer(2, in_channels=4)(torch.rand(1, 4, 8, 8)).shape == (1, 2, 8, 8)
    finally:
        convolution._try_fused_convolution.cache_clear()


def test_the_trial_of_the_operator_does_not_depend_on_autocast():
    convolution._try_fused_convolution.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        inside = convolution._fused_convolution_works()
    convolution._try_fused_convolution.cache_clear()
    assert inside == convolution._fused_convolution_works()
