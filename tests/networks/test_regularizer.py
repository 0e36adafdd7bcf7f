"""The CNN of the regularizer, plain and fused."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts.networks import regularizer
from scripts.networks.regularizer import Regularizer
from scripts.networks.winograd import winograd_convolution


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


@pytest.mark.parametrize("size", [(9, 7, 8), (4, 3, 5), (1, 2, 2), (70, 13, 12)])
def test_winograd_equals_the_convolution_in_double_precision(size):
    torch.manual_seed(0)
    conv, x = torch.nn.Conv3d(6, 5, 3, padding=1).double(), torch.randn(2, 6, *size)
    x = x.to(memory_format=torch.channels_last_3d)
    expected = torch.nn.functional.leaky_relu(conv(x.double()), 0.2)
    with torch.inference_mode():
        found = winograd_convolution(x, conv.weight.float(), conv.bias.float(), 0.2)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(found.double(), expected.detach(), atol=1e-5, rtol=0)


def test_winograd_multiplies_half_as_much():
    x = torch.rand(1, 6, 8, 5, 5)
    weight = torch.rand(6, 6, 3, 3, 3)
    counts = []
    for call in (winograd_convolution, lambda *_: torch.nn.functional.conv3d(x, weight, padding=1)):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            call(x, weight, torch.rand(6), 0.2)
        counts.append(counter.get_flop_counts()["Global"][torch.ops.aten.convolution])
    assert 2 * counts[0] == counts[1]


def test_small_3d_convolutions_never_take_the_slow_way():
    net, x = Regularizer(3, in_channels=5, num_channels=16), torch.rand(1, 5, 8, 8, 8)
    with torch.inference_mode(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        net(x)
    names = {event.key for event in profile.key_averages()}
    assert "mkldnn::_convolution_pointwise" in names
    assert not any("slow_conv3d" in name for name in names)
