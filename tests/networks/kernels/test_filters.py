"""Filters by hand, against SciPy, and their gradients."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from scripts.networks.kernels.filters import gaussian, window_mean, window_mean_transposed


def test_window_mean_counts_only_voxels_inside():
    image = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).view(1, 1, 5, 1)
    assert window_mean(image, 3).flatten().tolist() == [1.5, 2, 3, 4, 4.5]


def test_the_window_may_be_larger_than_the_image():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    torch.testing.assert_close(window_mean(image, 9), torch.full((1, 1, 2, 3), 2.5))


def test_the_transposed_mean_is_the_transpose():
    torch.manual_seed(0)
    a, b = torch.rand(2, 1, 1, 6, 5, 4, dtype=torch.float64)
    forth = (window_mean(a[None], 3) * b).sum()
    back = (a * window_mean_transposed(b[None], 3)).sum()
    assert forth.item() == pytest.approx(back.item())


def test_gaussian_equals_scipy_inside_and_keeps_a_constant():
    torch.manual_seed(0)
    field = torch.rand(1, 2, 15, 17, dtype=torch.float64)
    expected = gaussian_filter(field[0, 1].numpy(), 1.0, truncate=3.0)
    torch.testing.assert_close(gaussian(field, 1.0)[0, 1, 3:-3, 3:-3], torch.from_numpy(expected)[3:-3, 3:-3])
    constant = torch.full((1, 3, 5, 4, 6), 2.0)
    torch.testing.assert_close(gaussian(constant, 1.5), constant)
    assert gaussian(constant, 0) is constant


def test_gradients_of_first_and_second_order():
    torch.manual_seed(0)
    image = torch.rand(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    for function in (lambda x: gaussian(x, 0.7), lambda x: window_mean(x, 3).square()):
        assert torch.autograd.gradcheck(function, image)
        assert torch.autograd.gradgradcheck(function, image)


@pytest.mark.parametrize("size", [(9, 8, 7), (2, 3, 17)])
def test_an_evaluation_filters_volumes_as_a_training_does(size):
    torch.manual_seed(0)
    image = torch.rand(2, 3, *size)
    for function in (lambda x: gaussian(x, 0.7), lambda x: window_mean(x, 5)):
        with torch.no_grad():
            found = function(image)
        torch.testing.assert_close(found, function(image))
        torch.testing.assert_close(found.double(), function(image.double()), rtol=1e-5, atol=1e-6)


def test_volumes_are_filtered_by_hand():
    image = torch.zeros(1, 1, 3, 4, 5)
    image[0, 0, 0, 1, 4] = 12.0
    with torch.no_grad():
        found = window_mean(image, 3)
    # the windows hold 2 or 3 slices, 2 or 3 rows and 2 or 3 columns
    assert found[0, 0, 0, 1, 4].item() == pytest.approx(12 / (2 * 3 * 2))
    assert found[0, 0, 1, 0, 3].item() == pytest.approx(12 / (3 * 2 * 3))
    assert found[0, 0, 2].abs().max() == 0
    assert found[0, 0, 0, 1, 2] == 0
