"""Jacobian determinants and folding measures against values worked out by hand."""

import math

import pytest
import torch

from scripts.deformation.grid import lattice
from scripts.deformation.jacobian import (
    folding_measures,
    jacobian_determinant,
    non_diffeomorphic_volume,
    published_measures,
)


def linear_ddf(matrix, shape):
    points = lattice(shape, torch.float64)
    return (torch.tensordot(torch.tensor(matrix, dtype=torch.float64), points, dims=1) - points)[None]


@pytest.mark.parametrize(
    ("matrix", "shape"),
    [([[2.0, 0.5], [-0.3, 1.5]], (5, 4)), ([[1.2, 0.1, 0.3], [0.0, 0.9, -0.2], [0.4, 0.1, 1.1]], (5, 4, 3))],
)
def test_a_linear_map_has_its_determinant_everywhere(matrix, shape):
    expected = torch.linalg.det(torch.tensor(matrix, dtype=torch.float64)).expand(1, *shape)
    for central in (False, True):
        torch.testing.assert_close(jacobian_determinant(linear_ddf(matrix, shape), central), expected)


def test_forward_differences_by_hand():
    # along i: u = (0, 0.5, -1, -1): 1 + differences 0.5, -1.5, 0 and the last repeated
    ddf = torch.zeros(1, 2, 4, 3)
    ddf[0, 0] = torch.tensor([0.0, 0.5, -1.0, -1.0])[:, None]
    assert jacobian_determinant(ddf)[0, :, 0].tolist() == [1.5, -0.5, 1.0, 1.0]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_identity_and_rotation_have_no_negative_volume(shape):
    dims = len(shape)
    assert non_diffeomorphic_volume(torch.zeros(1, dims, *shape)).abs().max() == 0
    turn = torch.eye(dims)
    turn[0, 0] = turn[1, 1] = math.cos(2.0)
    turn[0, 1], turn[1, 0] = -math.sin(2.0), math.sin(2.0)
    assert non_diffeomorphic_volume(linear_ddf(turn.tolist(), shape)).abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_a_reflection_turns_the_whole_volume_inside_out(shape):
    reflection = torch.eye(len(shape))
    reflection[0, 0] = -1
    volume = non_diffeomorphic_volume(linear_ddf(reflection.tolist(), shape))
    # both ways of cutting a cell of volume 1 are all negative: half of twice 1
    torch.testing.assert_close(volume, torch.ones_like(volume))
    double = torch.diag(torch.tensor([-2.0, *[1.0] * (len(shape) - 1)]))
    torch.testing.assert_close(non_diffeomorphic_volume(linear_ddf(double.tolist(), shape)), 2 * volume)


@pytest.mark.parametrize("shape", [(2, 3), (5, 2, 4)])
def test_central_differences_are_those_of_torch(shape):
    ddf = torch.rand(1, len(shape), *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    columns = [torch.gradient(ddf, dim=2 + axis)[0] for axis in range(len(shape))]
    matrices = torch.stack(columns, 2)[0].movedim((0, 1), (-2, -1)) + torch.eye(len(shape), dtype=torch.float64)
    torch.testing.assert_close(jacobian_determinant(ddf, central=True)[0], torch.linalg.det(matrices))


def test_checkerboard_fold_that_central_differences_miss():
    # the centre point moved by (2, 0): forward |J| there is -1, at its lower neighbour 3; central differences see 1
    ddf = torch.zeros(1, 2, 5, 5)
    ddf[0, 0, 2, 2] = 2.0
    determinant = jacobian_determinant(ddf)[0]
    assert determinant[2, 2] == -1
    assert determinant[1, 2] == 3
    assert jacobian_determinant(ddf, central=True)[0, 2, 2] == 1
    # of the two cells beyond the point, each has 3 of its 4 triangles touching it: two of area (1 - 2) / 2 ...
    volume = non_diffeomorphic_volume(ddf)[0]
    assert volume[2, 2] == volume[2, 1]
    assert volume[2, 2] == pytest.approx(_area_by_polygons(ddf[0], 2, 2))
    assert volume[0, 0] == 0


def _area_by_polygons(ddf, i, j):
    """Half the negative areas of the four triangles of a cell, by the shoelace formula."""
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    corners = [torch.tensor(c) + ddf[:, i + c[0], j + c[1]] for c in square]
    total = 0.0
    for skipped in range(4):
        p = [corners[k] for k in range(4) if k != skipped]
        area = sum(p[k][0] * p[(k + 1) % 3][1] - p[(k + 1) % 3][0] * p[k][1] for k in range(3)) / 2
        total += min(area.item(), 0.0)
    return -total / 2


def measures_of(ddf, mask):
    return folding_measures(jacobian_determinant(ddf), non_diffeomorphic_volume(ddf), mask)


def test_measures_by_hand_inside_a_mask_and_outside():
    # |J| = 2 in the first half, 1 in the second, -1 in one voxel
    ddf = torch.zeros(1, 2, 9, 4)
    ddf[0, 0] = torch.tensor([0.0, 1, 2, 3, 4, 4, 4, 4, 4])[:, None]
    mask = torch.zeros(1, 9, 4, dtype=torch.bool)
    mask[:, :4] = True
    assert measures_of(ddf, mask) == {"folding_percent": 0, "ndv_percent": 0, "std_log_jacobian": 0}
    mask[:, :8] = True
    assert measures_of(ddf, mask)["std_log_jacobian"] == pytest.approx(math.log(2) / 2)
    ddf[0, 0, 6] = 2.0
    measures = measures_of(ddf, mask)
    # rows 5 -> 6 now fold: |J| = 1 - 2 in one row of eight; its cells are inside out, area 1 each of 8 x 3
    assert measures["folding_percent"] == pytest.approx(100 / 8)
    assert measures["ndv_percent"] == pytest.approx(100 / 8)


def test_published_measures_by_hand():
    # |J| along the first axis, the same in every row; what lies two voxels from the border is 1, 3, 1 in 3 of 7 rows
    profile = torch.tensor([9.0, 9, 1, 3, 1, 9, 9])
    determinant = profile[:, None].expand(7, 7)[None].clone()
    found = published_measures(determinant)
    logarithms = torch.tensor([4.0, 6, 4]).log()
    assert found["learn2reg_sdlogj"] == pytest.approx(logarithms.std(correction=0).item(), rel=1e-6)
    # central differences 0 -4 -3 0 3 4 0, one-sided at the border, and none along the second axis: 14 / 7 / 2
    assert found["mean_gradient_jacobian"] == pytest.approx(1.0)
    mask = torch.zeros(1, 7, 7, dtype=torch.bool)
    mask[:, 1:4] = True
    found = published_measures(determinant, mask)
    assert found["learn2reg_sdlogj"] == pytest.approx(math.log(6 / 4) / 2, rel=1e-6)
    assert found["mean_gradient_jacobian"] == pytest.approx(7 / 3 / 2)
    mask[:] = False
    assert all(math.isnan(value) for value in published_measures(determinant, mask).values())


def test_learn2reg_clips_determinants_below_minus_three():
    determinant = torch.ones(1, 5, 6)
    determinant[0, 2, 2] = -8.0  # log(1e-9) beside log(4)
    expected = (math.log(4) - math.log(1e-9)) / 2
    assert published_measures(determinant)["learn2reg_sdlogj"] == pytest.approx(expected, rel=1e-6)


def test_too_thin_an_axis_is_refused():
    for function in (jacobian_determinant, non_diffeomorphic_volume):
        with pytest.raises(ValueError, match="two voxels"):
            function(torch.zeros(1, 2, 1, 5))
