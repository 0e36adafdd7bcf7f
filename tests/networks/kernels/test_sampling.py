"""The interpolation kernel: values, exact derivatives, borders, and both backward passes."""

import pytest
import torch

from scripts.networks.kernels.sampling import warp, warp_with_gradient
from scripts.tools.benchmark.reference import reference_warp

SIZES = [(6, 7), (5, 4, 6)]


def random_pair(size, channels=1, spread=1.5, dtype=torch.float64):
    """An image and displacements that reach over the border, in general position (off the lattice)."""
    torch.manual_seed(0)
    image = torch.rand(2, channels, *size, dtype=dtype)
    return image, (torch.rand(2, len(size), *size, dtype=dtype) - 0.5) * 2 * spread


def test_value_and_derivative_by_hand():
    # f(i, j) = i * j on the lattice is f(x, y) = x * y between: at (1.25, 2.5) f = 3.125, df = (2.5, 1.25)
    image = torch.outer(torch.arange(4.0), torch.arange(5.0))[None, None]
    ddf = torch.zeros(1, 2, 4, 5)
    ddf[0, :, 1, 2] = torch.tensor([0.25, 0.5])
    value, gradient = warp_with_gradient(image, ddf)
    assert value[0, 0, 1, 2] == 3.125
    assert gradient[0, 0, :, 1, 2].tolist() == [2.5, 1.25]


def test_large_volumes_go_slab_by_slab_with_the_same_result():
    size = (65, 64, 64)  # 2^18 voxels are one slab
    torch.manual_seed(0)
    image, ddf = torch.rand(1, 1, *size), 3 * torch.randn(1, 3, *size)
    recorded = ddf.clone().requires_grad_()  # with a gradient to come, there are no slabs
    whole, gradient = warp_with_gradient(image, recorded)
    for found, expected in zip((*warp_with_gradient(image, ddf), warp(image, ddf)), (whole, gradient, whole)):
        assert torch.equal(found, expected)


def test_lattice_points_take_the_upper_cell_and_the_last_one_the_lower():
    image = torch.tensor([0.0, 1.0, 3.0, 6.0]).view(1, 1, 4, 1).repeat(1, 1, 1, 2)
    _, gradient = warp_with_gradient(image, torch.zeros(1, 2, 4, 2))
    assert gradient[0, 0, 0, :, 0].tolist() == [1, 2, 3, 3]


def test_beyond_the_border_the_value_is_constant_and_the_derivative_zero():
    image = torch.rand(1, 1, 4, 4)
    ddf = torch.zeros(1, 2, 4, 4)
    ddf[0, 0] = 10.0
    value, gradient = warp_with_gradient(image, ddf)
    torch.testing.assert_close(value, image[:, :, 3:].expand_as(image))
    assert (gradient[:, :, 0] == 0).all()
    assert (gradient[:, :, 1] != 0).any()


@pytest.mark.parametrize("size", SIZES)
def test_value_matches_the_reference_and_monai(size):
    from monai.networks.blocks import Warp

    image, ddf = random_pair(size, channels=3)
    value, _ = warp_with_gradient(image, ddf)
    torch.testing.assert_close(value, reference_warp(image, ddf))
    assert torch.equal(value, warp(image, ddf))
    expected = Warp(mode="bilinear", padding_mode="border")(image.float(), ddf.float())
    torch.testing.assert_close(value.float(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_derivative_matches_central_differences(size):
    image, ddf = random_pair(size)
    _, gradient = warp_with_gradient(image, ddf)
    step = 1e-6
    for axis in range(len(size)):
        shift = torch.zeros_like(ddf)
        shift[:, axis] = step
        difference = (reference_warp(image, ddf + shift) - reference_warp(image, ddf - shift)) / (2 * step)
        torch.testing.assert_close(gradient[:, :, axis], difference, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("size", [(4, 5), (3, 4, 3)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("function", [warp, warp_with_gradient])
def test_backward_and_double_backward(function, size, channels):
    image, ddf = random_pair(size, channels)
    image, ddf = image[:1].clone().requires_grad_(), ddf[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(function, (image, ddf))
    assert torch.autograd.gradgradcheck(function, (image, ddf))


def test_an_axis_of_one_voxel_is_constant():
    image = torch.rand(1, 1, 1, 5)
    value, gradient = warp_with_gradient(image, torch.full((1, 2, 1, 5), 0.25))
    torch.testing.assert_close(value[..., :4], 0.75 * image[..., :4] + 0.25 * image[..., 1:])
    assert (gradient[:, :, 0] == 0).all()


def test_a_nan_displacement_gives_nan_and_no_crash():
    image, ddf = random_pair((6, 7))
    ddf[0, 0, 2, 2] = float("nan")
    value, _ = warp_with_gradient(image, ddf)
    assert value.isnan().sum() == 1


@pytest.mark.parametrize("function", [warp, warp_with_gradient])
def test_the_backward_pass_keeps_only_image_and_displacement(function):
    image, ddf = random_pair((6, 7))
    ddf.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        function(image, ddf)
    assert sorted(kept) == sorted([image.data_ptr(), ddf.data_ptr()])
