"""Transforms of other tools: values by hand, nitransforms as a second reader, and every format there and back."""

import nibabel as nib
import nitransforms
import numpy as np
import pytest
import torch

from scripts.deformation.foreign_formats import Images
from scripts.deformation.transform_files import read_transform, write_transform
from scripts.deformation.transforms import Affine, Chain, Displacement
from scripts.support.errors import InputError

from ..conftest import oblique_affine


def image(affine, shape=(10, 12, 8)):
    return nib.Nifti1Image(np.zeros(shape, np.float32), np.asarray(affine, dtype=np.float64))


RAS, LAS = image(np.diag([2.0, 3, 4, 1])), image(np.diag([-2.0, 3, 4, 1]))
FIXED = image(oblique_affine((1, 2, 3), (15, -30, 40), (20, 10), (-1, 1, 1)), (14, 10, 8))
MOVING = image(oblique_affine((2, 1.5, 2), (10, -25, 36), (-15, 5), (1, -1, 1)), (9, 16, 10))
POINTS = torch.tensor([[3.0, 10.0, 6.0], [8.0, 17.0, 12.0], [11.0, 4.0, 19.0]], dtype=torch.float64)


def moved(chain, points=POINTS):
    return (chain(points) - points).numpy()


@pytest.mark.parametrize("grid", [RAS, LAS])
def test_a_shift_of_flirt_by_hand(tmp_path, grid):
    """It moves the moving image by (5, 6, 8) mm, where x runs to the left for either order of the voxels."""
    (tmp_path / "a.mat").write_text("1 0 0 5\n0 1 0 6\n0 0 1 8\n0 0 0 1\n")
    chain = read_transform(tmp_path / "a.mat", images=Images(grid, grid))
    np.testing.assert_allclose(moved(chain), np.array([[5], [-6], [-8]]) * np.ones((1, 3)), atol=1e-9)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("grid", [RAS, LAS])
def test_a_field_of_fnirt_by_hand(tmp_path, grid, absolute):
    field = np.full((*grid.shape, 3), (5, 6, 8), np.float32)
    if absolute:
        places = [np.arange(n) * size for n, size in zip(grid.shape, (2, 3, 4))]
        places[0] = places[0][::-1] if grid is RAS else places[0]  # x is 0 at the rightmost voxel
        field += np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).astype(np.float32)
    warp = nib.Nifti1Image(field, grid.affine)
    warp.header.set_intent(2006, allow_unknown=True)
    nib.save(warp, tmp_path / "w.nii.gz")
    chain = read_transform(tmp_path / "w.nii.gz", images=Images(grid, grid))
    inside = torch.from_numpy(grid.affine[:3, :3]) @ torch.tensor([[4.0], [5.0], [3.0]], dtype=torch.float64)
    np.testing.assert_allclose(moved(chain, inside), [[-5], [6], [8]], atol=1e-5)


def test_matrices_of_flirt_are_those_of_nitransforms(tmp_path):
    matrix = np.eye(4) + 0.05 * np.random.default_rng(0).normal(size=(4, 4)) * [[1, 1, 1, 40]] * 3 + [[0] * 4]
    matrix[3] = (0, 0, 0, 1)
    np.savetxt(tmp_path / "a.mat", matrix)
    ours = read_transform(tmp_path / "a.mat", images=Images(FIXED, MOVING)).as_affine()
    theirs = nitransforms.linear.load(tmp_path / "a.mat", fmt="fsl", reference=FIXED, moving=MOVING)
    np.testing.assert_allclose(ours.matrix.numpy(), np.array(theirs.matrix).reshape(4, 4), atol=1e-8)


def test_a_shift_of_afni_by_hand(tmp_path):
    """From the base to the source, in DICOM order, whose x runs to the left."""
    (tmp_path / "a.1D").write_text("1 0 0 5 0 1 0 6 0 0 1 8\n")
    shift = moved(read_transform(tmp_path / "a.1D", images=Images(RAS, RAS)))
    np.testing.assert_allclose(shift, np.array([[-5], [-6], [8]]) * np.ones((1, 3)), atol=1e-6)


def test_a_shift_of_freesurfer_by_hand(tmp_path):
    """From the moving image, src, to the fixed one, dst, in RAS."""
    volume = "valid = 1\nfilename = x\nvolume = 10 12 8\nvoxelsize = 2 3 4\n"
    volume += "xras = 1 0 0\nyras = 0 1 0\nzras = 0 0 1\ncras = 0 0 0"
    (tmp_path / "a.lta").write_text(
        "type      = 1\nnxforms   = 1\nmean      = 0 0 0\nsigma     = 1\n1 4 4\n1 0 0 5\n0 1 0 6\n0 0 1 8\n0 0 0 1\n"
        f"src volume info\n{volume}\ndst volume info\n{volume}\n"
    )
    shift = moved(read_transform(tmp_path / "a.lta"))
    np.testing.assert_allclose(shift, np.array([[-5], [-6], [-8]]) * np.ones((1, 3)), atol=1e-6)


@pytest.mark.parametrize("name", ["a.mat", "fsl.mat", "a.tfm", "a.txt", "a.h5", "a.lta", "a.1D", "a.x5"])
def test_affine_maps_there_and_back_in_every_format(tmp_path, name):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3] += 0.1 * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chain, images = Chain([Affine(matrix)]), Images(FIXED, MOVING)
    write_transform(chain, tmp_path / name, images, fsl=name.startswith("fsl"))
    again = read_transform(tmp_path / name, images=images).as_affine()
    torch.testing.assert_close(again.matrix, matrix, atol=1e-4, rtol=0)


def smooth_field(grid, size=2.0):
    waves = np.stack(np.meshgrid(*[np.sin(np.linspace(0.3, 2.8, n)) for n in grid.shape], indexing="ij"))
    vectors = size * torch.from_numpy(waves * np.array([1, -0.7, 0.5])[:, None, None, None]).float()
    return Chain([Displacement(vectors, torch.from_numpy(grid.affine))])


@pytest.mark.parametrize(
    ("name", "accuracy"), [("d.nii.gz", 1e-4), ("fsl.nii.gz", 1e-4), ("d.h5", 1e-4), ("d.npz", 0.2)]
)
def test_fields_there_and_back_in_every_format(tmp_path, name, accuracy):
    images, chain = Images(FIXED, MOVING), smooth_field(FIXED)
    write_transform(chain, tmp_path / name, images, fsl=name.startswith("fsl"))
    again = read_transform(tmp_path / name, images=images)
    voxels = torch.tensor([[4.0, 7.0, 9.5], [3.0, 5.0, 6.0], [2.0, 4.0, 5.25]], dtype=torch.float64)
    affine = torch.from_numpy(FIXED.affine)
    points = affine[:3, :3] @ voxels + affine[:3, 3:]
    assert np.abs(moved(chain, points)).max() > 1
    torch.testing.assert_close(again(points), chain(points), atol=accuracy, rtol=0)


def test_learn2reg_stores_half_the_resolution_in_voxels_of_the_full_one(tmp_path):
    shift = torch.zeros(3, *RAS.shape)
    shift[:] = torch.tensor([2.0, -3.0, 8.0]).view(3, 1, 1, 1)  # mm
    write_transform(Chain([Displacement(shift, torch.from_numpy(RAS.affine))]), tmp_path / "d.npz", Images(RAS, RAS))
    values = np.load(tmp_path / "d.npz")["arr_0"]
    assert (values.shape, values.dtype) == ((3, 5, 6, 4), np.float16)
    np.testing.assert_allclose(values[:, 2, 3, 2], (1, -1, 2), atol=1e-3)


def test_what_is_missing_or_does_not_fit_is_said_in_one_line(tmp_path):
    np.savetxt(tmp_path / "a.mat", np.eye(4))
    (tmp_path / "words.mat").write_text("not a matrix")
    (tmp_path / "torn.lta").write_text("type = 1\n")
    warp = nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.float32), np.eye(4))
    warp.header.set_intent(2007, allow_unknown=True)
    nib.save(warp, tmp_path / "coefficients.nii.gz")
    field, both = smooth_field(FIXED), Images(FIXED, MOVING)
    for call, message in (
        (lambda: read_transform(tmp_path / "a.mat"), "expected --images FIXED MOVING"),
        (lambda: read_transform(tmp_path / "words.mat", images=both), "words.mat cannot be read as a transform"),
        (lambda: read_transform(tmp_path / "torn.lta"), "torn.lta cannot be read as a transform"),
        (lambda: read_transform(tmp_path / "coefficients.nii.gz", images=both), "holds coefficients of fnirt"),
        (lambda: write_transform(field, tmp_path / "b.lta", both), "the transform is a field"),
        (lambda: write_transform(field, tmp_path / "b.mat", both, fsl=True), "the transform is a field"),
        (lambda: write_transform(field, tmp_path / "b.lta", both, fsl=True), "not a format of FSL"),
        (lambda: write_transform(field, tmp_path / "b.npz", Images()), "expected --reference"),
        (lambda: write_transform(field, tmp_path / "b.xyz", both), "not named as a transform"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("b.*"))
