"""The inverse field: exact for translations, within tolerance for smooth fields, honest where the field folds."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from scripts.deformation.formats import ddf_to_itk
from scripts.deformation.grid import apply_affine, lattice, sample
from scripts.deformation.inversion import invert_ddf, invert_on_grid

from ..conftest import oblique_affine


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


def turned(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


ALIGNMENTS = {
    "world": np.eye(4),
    "centers": np.eye(4) + np.array([[0, 0, 0, 150.0], [0, 0, 0, -90], [0, 0, 0, 40], [0] * 4]),
    "affine": turned(25) @ np.diag([1.1, 0.9, 1.2, 1]) + np.array([[0, 0, 0, 60.0], *[[0] * 4] * 3]),
}


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_simpleitk_goes_there_and_back_on_the_grids_of_the_two_images(tmp_path, name):
    """From fixed to moving points by the one file, and back by the other, on another grid that need not overlap."""
    alignment = ALIGNMENTS[name]
    grid = oblique_affine((1, 1.5, 2), (5, -9, 3), (20, 10), (-1, 1, 1))
    fixed = nib.Nifti1Image(np.zeros((24, 20, 16), np.float32), grid)
    # the moving image: the same place in the other world, with a margin, on a turned grid of other voxels
    margin = oblique_affine((0.9, 1.2, 1.7), (0, 0, 0), (-15, 5), (1, 1, -1))
    middle = alignment @ fixed.affine @ [11.5, 9.5, 7.5, 1]
    margin[:3, 3] = middle[:3] - margin[:3, :3] @ [29.5, 29.5, 24.5]
    moving = nib.Nifti1Image(np.zeros((60, 60, 50), np.float32), margin)
    wave = 1.5 * torch.sin(lattice((24, 20, 16)) / 5).roll(1, 0)
    own = lattice((24, 20, 16))
    tensors = [torch.from_numpy(matrix) for matrix in (fixed.affine, alignment, moving.affine)]
    aligned = torch.linalg.solve(tensors[0], tensors[1] @ tensors[0])
    ddf = apply_affine(aligned, own + wave) - own
    inverse = invert_on_grid(ddf, *tensors, moving.shape)
    assert 0.05 < inverse.covered.double().mean() < 0.95
    assert inverse.solved[inverse.covered].all()
    assert inverse.residual_mm[inverse.covered].max() < 0.03
    for file, field, grid in (("field", ddf, fixed), ("inverse", inverse.ddf, moving)):
        nib.save(ddf_to_itk(field.numpy(), grid), tmp_path / f"{file}.nii.gz")
    there, back = (
        sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / f"{file}.nii.gz"), sitk.sitkVectorFloat64))
        for file in ("field", "inverse")
    )
    for index in np.ndindex(4, 3, 3):
        world = fixed.affine @ [*(3 + 5 * np.array(index)), 1]
        point = (-world[0], -world[1], world[2])
        assert np.linalg.norm(np.subtract(back.TransformPoint(there.TransformPoint(point)), point)) < 0.1
