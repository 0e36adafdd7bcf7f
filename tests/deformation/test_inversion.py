"""The inverse field: exact for translations, within tolerance for smooth fields, honest where the field folds."""

import pytest
import torch

from scripts.deformation.grid import lattice, sample
from scripts.deformation.inversion import invert_ddf


def bump(shape, size):
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    weight = torch.exp(-8 * sum(a**2 for a in axes))
    direction = torch.tensor([1.0, -0.7, 0.4][: len(shape)]).view(-1, *[1] * len(shape))
    return size * direction * weight


def test_a_translation_is_inverted_exactly():
    ddf = torch.tensor([1.5, -2.25, 0.5]).view(3, 1, 1, 1).expand(3, 6, 7, 5).clone()
    inverse, residual = invert_ddf(ddf)
    torch.testing.assert_close(inverse, -ddf)
    assert residual.abs().max() == 0


@pytest.mark.parametrize("shape", [(40, 36), (24, 20, 22)])
def test_composition_with_the_inverse_is_the_identity(shape):
    ddf = bump(shape, shape[0] / 16)
    inverse, residual = invert_ddf(ddf)
    assert residual.norm(dim=0).max() <= 0.01
    there_and_back = inverse + sample(ddf, lattice(shape) + inverse)
    torch.testing.assert_close(there_and_back, residual)
    # and the other way round, up to the interpolation of the inverse
    back_and_there = ddf + sample(inverse, lattice(shape) + ddf)
    assert back_and_there.norm(dim=0).max() < 0.25


def test_an_expansion_beyond_the_plain_fixed_point_iteration():
    # x -> 3 x has the Lipschitz constant 2, where v <- -u(y + v) diverges; its inverse is y / 3
    points = lattice((21, 21)) - 10
    inverse, residual = invert_ddf(2 * points)
    assert residual.norm(dim=0).max() <= 0.01
    torch.testing.assert_close(inverse, -2 / 3 * points, atol=0.01, rtol=0)


def test_a_fold_leaves_a_residual_that_tells():
    ddf = torch.zeros(2, 12, 12)
    ddf[0, 6:] = -4.0  # everything from row 6 on comes from 4 rows before: rows 2..5 twice, 8..11 only beyond
    ddf[0, 5] = 4.0
    _, residual = invert_ddf(ddf)
    assert torch.isfinite(residual).all()
