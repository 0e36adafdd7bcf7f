"""Parts of large volumes give what the whole gives."""

import math

import pytest
import torch

from scripts.deformation.grid import sample
from scripts.deformation.inversion import invert_on_grid
from scripts.deformation.jacobian import (
    folding_measures,
    jacobian_determinant,
    non_diffeomorphic_volume,
    published_measures,
)
from scripts.support import slabs as module
from scripts.support.slabs import deviation, masked, mean, share, slabs


def test_slabs_cover_the_grid(monkeypatch):
    monkeypatch.setattr(module, "SLAB", 24)
    assert slabs((5, 3, 4)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert slabs((3, 100)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert slabs((0, 3)) == []


def test_reductions_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(module, "SLAB", 2)
    values = torch.tensor([1.0, 2.0, 4.0, 9.0, 14.0])
    assert mean(values) == 6
    assert deviation(values, torch.Tensor.double) == pytest.approx(math.sqrt((25 + 16 + 4 + 9 + 64) / 5))
    assert share(values > 3) == 0.6
    assert masked(values, values > 3).tolist() == [4, 9, 14]
    empty = values[:0]
    assert all(math.isnan(x) for x in (mean(empty), deviation(empty, torch.Tensor.double), share(empty > 0)))


@pytest.mark.parametrize("shape", [(1, 3, 7, 6, 5), (4, 2, 6, 7)])
def test_a_field_in_slabs_has_the_measures_of_the_whole(monkeypatch, shape):
    ddf = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 3
    mask = torch.rand(len(ddf), *shape[2:], generator=torch.Generator().manual_seed(1)) > 0.3

    def measures():
        determinant, central = jacobian_determinant(ddf), jacobian_determinant(ddf, central=True)
        volume = non_diffeomorphic_volume(ddf)
        numbers = {**folding_measures(determinant, volume, mask), **published_measures(central, mask)}
        return determinant, central, volume, numbers

    whole = measures()
    monkeypatch.setattr(module, "SLAB", 1)
    parts = measures()
    assert all(torch.equal(a, b) for a, b in zip(whole[:3], parts[:3]))
    assert parts[3] == pytest.approx(whole[3], rel=1e-12)


def test_an_inverse_and_ids_in_slabs_are_those_of_the_whole(monkeypatch):
    ddf = torch.rand(3, 9, 8, 7, generator=torch.Generator().manual_seed(0)) / 2
    affine = torch.diag(torch.tensor([1.0, 2.0, 1.5, 1.0], dtype=torch.float64))
    eye = torch.eye(4, dtype=torch.float64)
    ids = torch.randint(2**24, 2**24 + 9, (1, 9, 8, 7), generator=torch.Generator().manual_seed(1))
    points = torch.rand(3, 5, 6, 4, generator=torch.Generator().manual_seed(2)) * 9

    def results():
        return *invert_on_grid(ddf, affine, eye, affine, (9, 8, 7)), sample(ids, points, "nearest", fill=0)

    whole = results()
    monkeypatch.setattr(module, "SLAB", 1)
    for a, b in zip(whole, results()):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_measures_of_a_field_have_gradients():
    ddf = (torch.rand(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(0)) * 3).requires_grad_()
    for measure in (jacobian_determinant, non_diffeomorphic_volume):
        values = measure(ddf)
        assert torch.equal(values, measure(ddf.detach()))
        assert torch.autograd.grad(values.square().sum(), ddf)[0].abs().sum() > 0
