"""Points, sampling, and the way from the network's grid to the native one."""

import pytest
import torch

from scripts.deformation.grid import FADE_MM, apply_affine, lattice, sample, to_native_ddf
from scripts.deformation.transforms import Affine

IDENTITY = torch.eye(4, dtype=torch.float64)


def affine(scale, origin):
    matrix = torch.diag(torch.tensor([*scale, 1.0], dtype=torch.float64))
    matrix[:3, 3] = torch.tensor(origin, dtype=torch.float64)
    return matrix


def test_sample_by_hand():
    volume = torch.outer(torch.arange(3.0), torch.arange(4.0))[None]
    points = torch.tensor([[0.5, 2.0, 1.0], [2.0, 2.5, 3.0]])
    assert sample(volume, points).tolist() == [[1.0, 5.0, 3.0]]
    assert sample(volume, points + 0.2, mode="nearest").tolist() == [[2.0, 6.0, 3.0]]


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 1)])
def test_sampling_at_the_lattice_gives_the_volume(shape):
    volume = torch.rand(2, *shape)
    torch.testing.assert_close(sample(volume, lattice(shape)), volume)


def test_border_is_extended_or_filled_beyond_half_a_voxel():
    volume = torch.tensor([[[1.0, 2.0, 3.0]] * 2])
    points = torch.tensor([[0.0, 0.0, 0.0], [2.4, 2.6, -0.6]])
    assert sample(volume, points).tolist() == [[3, 3, 1]]
    assert sample(volume, points, fill=0).tolist() == [[3, 0, 0]]


def test_a_shift_keeps_its_millimetres_on_a_flipped_anisotropic_grid():
    # network grid 2 mm RAS; native grid 1 x 0.5 x 3 mm with flipped first axis: 4, -2, 6 mm are -4, -4, 2 voxels
    shift = torch.tensor([2.0, -1.0, 3.0]).view(3, 1, 1, 1).expand(3, 20, 20, 20)
    native = affine((-1, 0.5, 3), (30, 8, 5))
    ddf = to_native_ddf(shift, affine((2, 2, 2), (0, 0, 0)), native, (10, 12, 8), None)
    expected = torch.tensor([-4.0, -4.0, 2.0]).view(3, 1, 1, 1).expand(3, 10, 12, 8)
    torch.testing.assert_close(ddf, expected)


def test_an_oblique_native_grid_sees_the_same_world_field():
    angle = torch.tensor(0.4, dtype=torch.float64)
    rotation = torch.eye(4, dtype=torch.float64)
    rotation[0, 0] = rotation[1, 1] = angle.cos()
    rotation[0, 1], rotation[1, 0] = -angle.sin(), angle.sin()
    native = rotation @ affine((1, 1.5, 2), (-6, -7, -8))
    network = affine((2, 2, 2), (-20, -20, -20))
    # a linear field of the world: d(x) = 0.1 * (y, -x, 0), exact under linear interpolation
    world = apply_affine(network, lattice((21, 21, 21), torch.float64))
    field = 0.1 * torch.stack([world[1], -world[0], torch.zeros_like(world[0])]) / 2
    ddf = to_native_ddf(field, network, native, (9, 8, 7), None).double()
    points = apply_affine(native, lattice((9, 8, 7), torch.float64))
    expected = 0.1 * torch.stack([points[1], -points[0], torch.zeros_like(points[0])])
    in_world = torch.tensordot(native[:3, :3], ddf, dims=1)
    torch.testing.assert_close(in_world, expected, atol=1e-4, rtol=0)


def test_the_alignment_is_part_of_the_native_displacement():
    # native 2 mm grid; moving world = fixed world + (6, -4, 2) mm, network adds one voxel of 1 mm along k
    alignment = affine((1, 1, 1), (6, -4, 2))
    field = torch.zeros(3, 16, 16, 16)
    field[2] = 1.0
    ddf = to_native_ddf(field, IDENTITY, affine((2, 2, 2), (0, 0, 0)), (6, 6, 6), Affine(alignment))
    torch.testing.assert_close(ddf[:, 3, 3, 3], torch.tensor([3.0, -2.0, 1.5]))


def test_outside_the_field_of_view_the_displacement_fades_without_folding():
    from scripts.deformation.jacobian import jacobian_determinant

    field = torch.zeros(3, 10, 10, 10)
    field[0] = 8.0
    ddf = to_native_ddf(field, IDENTITY, affine((1, 1, 1), (-50, 0, 0)), (110, 10, 10), None)
    profile = ddf[0, :, 5, 5]
    torch.testing.assert_close(profile[50:60], torch.full((10,), 8.0))
    torch.testing.assert_close(profile[50 - 15], torch.tensor(8.0 * (1 - 15 / FADE_MM)))
    assert (profile[:20] == 0).all()
    assert jacobian_determinant(ddf[None]).min() > 0.7


@pytest.mark.parametrize("large", [2**24 + 1, 2**32 - 1, 5])
def test_whole_numbers_are_sampled_as_they_are(large):
    ids = torch.tensor([[0, large, large - 2, -7]])[None, :, :, None].expand(1, 3, 4, 2).contiguous()
    points = lattice((3, 4, 2)) + torch.tensor([0.3, 1.2, 0.0]).view(3, 1, 1, 1)
    found = sample(ids, points, "nearest", fill=0)
    assert found.dtype == ids.dtype
    assert found[0, 1, :, 0].tolist() == [large, large - 2, -7, 0]
    assert sample(ids, points, "nearest")[0, 1, :, 0].tolist() == [large, large - 2, -7, -7]
