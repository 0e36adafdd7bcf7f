"""Winograd's convolution against the plain one."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts.networks.kernels.winograd import winograd_convolution


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
