"""Transforms of other tools: values by hand, nitransforms as a second reader, and every format there and back."""

import gzip
import struct

import nibabel as nib
import nitransforms
import numpy as np
import pytest
import SimpleITK as sitk
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


def test_a_matrix_of_greedy_by_hand_and_how_the_one_of_flirt_differs(tmp_path, caplog):
    """From the fixed to the moving image, in RAS."""
    for name in ("a.txt", "a.mat"):
        (tmp_path / name).write_text("1 0 0 5\n0 1 0 6\n0 0 1 8\n0 0 0 1\n")
    shift = moved(read_transform(tmp_path / "a.txt"))
    np.testing.assert_allclose(shift, np.array([[5], [6], [8]]) * np.ones((1, 3)), atol=1e-9)
    assert not caplog.text
    assert not np.allclose(moved(read_transform(tmp_path / "a.mat", images=Images(RAS, RAS))), shift)
    assert "a.mat is read as a matrix of FSL's flirt; if it is one of Greedy" in caplog.text


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


def geometry(grid):
    """The place of an image, as FreeSurfer writes it: valid, size, voxel size, one axis per row, middle, file."""
    linear, size = grid.affine[:3, :3], np.linalg.norm(grid.affine[:3, :3], axis=0)
    middle = grid.affine @ [*(np.array(grid.shape) / 2), 1]
    numbers = (*size, *(linear / size).T.ravel(), *middle[:3])
    return struct.pack(">i3i15f512s", 1, *grid.shape, *numbers, b"none")


def write_mgz(path, values, tags=b"", version=0x301):
    """FreeSurfer's form: version, four sizes, float, 1; the place; zeros; voxels, first axis fastest; scan; tags."""
    header = struct.pack(">7ih15f", version, *values.shape, 3, 1, 1, *[1.0] * 15).ljust(284, b"\0")
    content = header + values.astype(">f4").tobytes(order="F") + bytes(20) + tags
    path.write_bytes(gzip.compress(content))


@pytest.mark.parametrize("form", range(4))
@pytest.mark.parametrize("frames", [3, 4])
def test_a_warp_of_freesurfer_by_hand(tmp_path, form, frames):
    """A voxel goes 4 to the right, 6 to the back and 8 up: values by hand in each of the four forms."""
    moving = image(np.diag([1.0, -2, 2, 1]), (20, 18, 16))
    moving.affine[:3, 3] = (100, 50, -30)
    voxels = np.stack(np.meshgrid(*map(np.arange, RAS.shape), indexing="ij"), axis=-1)
    points = voxels * (2, 3, 4) + (4, -6, 8)
    in_moving = (points - (100, 50, -30)) / (1, -2, 2)
    values = (in_moving, in_moving - voxels, points, np.broadcast_to((4, -6, 8), points.shape))[form]
    values = np.concatenate([values, np.full((*RAS.shape, frames - 3), 7)], axis=-1)
    skipped = struct.pack(">iq7s", 41, 7, b"UNKNOWN") + struct.pack(">ii3s", 30, 3, b"xyz")
    tags = struct.pack(">i", 10) + geometry(moving) + geometry(RAS) + struct.pack(">iqiif", 13, 12, form, 1, 0)
    write_mgz(tmp_path / "w.mgz", values, skipped + tags)
    found = moved(read_transform(tmp_path / "w.mgz"))
    np.testing.assert_allclose(found, np.array([[4], [-6], [8]]) * np.ones((1, 3)), atol=1e-4)


def test_a_written_warp_of_freesurfer_byte_by_byte(tmp_path):
    shift = torch.tensor([4.0, -6.0, 8.0]).view(3, 1, 1, 1).expand(3, *RAS.shape)
    field = Chain([Displacement(shift, torch.from_numpy(RAS.affine))])
    write_transform(field, tmp_path / "w.mgz", Images(RAS, MOVING))
    content = gzip.decompress((tmp_path / "w.mgz").read_bytes())
    assert struct.unpack(">7ih3f", content[:42]) == (0x301, 10, 12, 8, 3, 3, 0, 1, 2.0, 3.0, 4.0)
    size = 4 * 3 * 10 * 12 * 8
    values = np.frombuffer(content[284 : 284 + size], ">f4").reshape((*RAS.shape, 3), order="F")
    np.testing.assert_allclose(values, np.broadcast_to((4, -6, 8), values.shape))
    tags = struct.pack(">i", 10) + geometry(MOVING) + geometry(RAS) + struct.pack(">iqiif", 13, 12, 3, 1, 0)
    assert content[284 + size + 20 :] == tags


@pytest.mark.parametrize("kind", ["displacements", "deformations", "coefficients"])
def test_a_nonlinear_x5_of_nitransforms(tmp_path, kind):
    waves = smooth_field(FIXED).transforms[0].vectors.movedim(0, -1).double().numpy()
    if kind == "coefficients":
        knots = nib.Nifti1Image(waves[::3, ::3, ::3], FIXED.affine @ np.diag([3.0, 3, 3, 1]))
        written = nitransforms.nonlinear.BSplineFieldTransform(knots, reference=FIXED)
    else:
        own = nitransforms.base.ImageGrid(FIXED).ndcoords.reshape(waves.shape)
        values = waves if kind == "displacements" else own + waves
        written = nitransforms.nonlinear.DenseFieldTransform(values, kind == "displacements", reference=FIXED)
    nitransforms.io.x5.to_filename(tmp_path / "d.x5", [written.to_x5()])
    voxels = np.array([[4, 3, 2], [7, 5, 4], [9, 6, 5]])
    points = voxels @ FIXED.affine[:3, :3].T + FIXED.affine[:3, 3]
    found = read_transform(tmp_path / "d.x5")(torch.from_numpy(points.T.copy())).numpy().T
    expected = written.map(points)
    assert np.abs(expected - points).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_written_x5_is_the_field_of_nitransforms(tmp_path):
    chain = smooth_field(FIXED)
    write_transform(chain, tmp_path / "d.x5", Images(FIXED, MOVING))
    points = np.array([[4, 3, 2], [7, 5, 4]]) @ FIXED.affine[:3, :3].T + FIXED.affine[:3, 3]
    theirs = nitransforms.nonlinear.load(tmp_path / "d.x5").map(points)
    np.testing.assert_allclose(theirs, chain(torch.from_numpy(points.T.copy())).numpy().T, atol=1e-4)


@pytest.mark.parametrize("name", ["b.tfm", "b.h5"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_spline_of_itk_in_a_chain(tmp_path, name, order):
    random = np.random.default_rng(order)
    spline = sitk.BSplineTransform(3, order)
    spline.SetTransformDomainMeshSize((4, 5, 6))
    spline.SetTransformDomainPhysicalDimensions((40.0, 50.0, 60.0))
    spline.SetTransformDomainOrigin((1.0, 2.0, 3.0))
    rotation = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.3, -0.2, 0.5)
    spline.SetTransformDomainDirection(rotation.GetMatrix())
    spline.SetParameters(random.normal(size=len(spline.GetParameters())).tolist())
    chain = sitk.CompositeTransform([rotation, spline])  # the last one is applied first
    sitk.WriteTransform(chain, str(tmp_path / name))
    points = random.uniform(-20, 80, (500, 3))  # inside and outside of the spline
    expected = [chain.TransformPoint(point) for point in points.tolist()]
    found = read_transform(tmp_path / name)(torch.from_numpy((points * (-1, -1, 1)).T.copy())).numpy().T * (-1, -1, 1)
    np.testing.assert_allclose(found, expected, atol=1e-9)


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
    ("name", "accuracy"),
    [
        ("d.nii.gz", 1e-4),
        ("fsl.nii.gz", 1e-4),
        ("d.h5", 1e-4),
        ("d.hdf5", 1e-4),
        ("d.mgz", 1e-4),
        ("d.x5", 1e-4),
        ("d.pt", 1e-4),
        ("d.npz", 0.2),
    ],
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
    write_mgz(tmp_path / "image.mgz", np.zeros((4, 4, 4, 1)), version=1)
    write_mgz(tmp_path / "no_tags.mgz", np.zeros((4, 4, 4, 3)))
    other = struct.pack(">i", 10) + geometry(RAS) + geometry(RAS) + struct.pack(">iqiif", 13, 12, 3, 1, 0)
    write_mgz(tmp_path / "half.mgz", np.zeros((5, 6, 4, 3)), other)
    write_mgz(tmp_path / "nan.mgz", np.full((*RAS.shape, 3), np.nan), other)
    (tmp_path / "torn.mgz").write_bytes((tmp_path / "half.mgz").read_bytes()[:100])
    (tmp_path / "a.m3z").write_bytes(b"")
    (tmp_path / "torn.x5").write_bytes(b"HDF")
    two = [nitransforms.linear.Affine(np.eye(4)).to_x5()] * 2
    nitransforms.io.x5.to_filename(tmp_path / "two.x5", two)
    spline = sitk.BSplineTransform(3)
    sitk.WriteTransform(spline, str(tmp_path / "spline.tfm"))
    (tmp_path / "TransformParameters.0.txt").write_text('(Direction 1 0 0)\n(Transform "BSplineTransform")\n')
    np.savez(tmp_path / "other.npz", np.zeros((3, 20, 20, 20)))
    torch.save(torch.zeros(3, 20, 20, 20), tmp_path / "other.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    field, both = smooth_field(FIXED), Images(FIXED, MOVING)
    flat, slice_ = image(np.eye(4), (6, 5)), image(np.eye(4), (6, 5, 1))
    for call, message in (
        (lambda: read_transform(tmp_path / "a.mat"), "expected --images FIXED MOVING"),
        (lambda: read_transform(tmp_path / "words.mat", images=both), "words.mat cannot be read as a transform"),
        (lambda: read_transform(tmp_path / "torn.lta"), "torn.lta cannot be read as a transform"),
        (lambda: read_transform(tmp_path / "coefficients.nii.gz", images=both), "holds coefficients of fnirt"),
        (lambda: read_transform(tmp_path / "image.mgz"), "image.mgz is not a warp of FreeSurfer"),
        (lambda: read_transform(tmp_path / "no_tags.mgz"), "no_tags.mgz is a warp without its frames"),
        (lambda: read_transform(tmp_path / "half.mgz"), "half.mgz is a warp without its frames, or not on the whole"),
        (lambda: read_transform(tmp_path / "nan.mgz"), "NaN or infinite values"),
        (lambda: read_transform(tmp_path / "torn.mgz"), "torn.mgz cannot be read as a warp"),
        (lambda: read_transform(tmp_path / "a.m3z"), "a.m3z is not named as a transform: expected one of .*mgz"),
        (lambda: read_transform(tmp_path / "torn.x5"), "torn.x5 cannot be read as a transform"),
        (lambda: read_transform(tmp_path / "two.x5"), "two.x5 holds 2 transforms"),
        (
            lambda: read_transform(tmp_path / "TransformParameters.0.txt"),
            "0.txt is a file of elastix: expected a field",
        ),
        (lambda: read_transform(tmp_path / "other.npz", images=both), r"other.npz has shape \(3, 20, 20, 20\)"),
        (lambda: read_transform(tmp_path / "other.pt", images=both), r"expected \(3, 14, 10, 8\), voxels of the fixed"),
        (lambda: read_transform(tmp_path / "weights.pt", images=both), "weights.pt cannot be read as a transform"),
        (lambda: read_transform(tmp_path / "other.pt"), "other.pt does not hold its frames"),
        (lambda: read_transform(tmp_path / "spline.tfm").inverse(), "the inverse of a B-spline is not known"),
        (
            lambda: write_transform(field, tmp_path / "b.npz", Images(flat, flat)),
            "format for volumes, and the images are",
        ),
        (lambda: write_transform(field, tmp_path / "b.mgz", Images(flat, flat)), "format for volumes"),
        (lambda: write_transform(field, tmp_path / "b.nii", Images(flat, flat), fsl=True), "format for volumes"),
        (lambda: write_transform(field, tmp_path / "b.x5", Images(slice_)), "cannot hold this transform between these"),
        (lambda: read_transform(tmp_path / "a.mat", images=Images(flat, flat)), "format for volumes"),
        (lambda: write_transform(field, tmp_path / "b.mgz", Images(FIXED)), "expected --images FIXED MOVING"),
        (lambda: write_transform(field, tmp_path / "b.x5", Images()), "expected --reference"),
        (lambda: write_transform(field, tmp_path / "b.lta", both), "the transform is a field"),
        (lambda: write_transform(field, tmp_path / "b.mat", both, fsl=True), "the transform is a field"),
        (lambda: write_transform(field, tmp_path / "b.lta", both, fsl=True), "not a format of FSL"),
        (lambda: write_transform(field, tmp_path / "b.npz", Images()), "expected --reference"),
        (lambda: write_transform(field, tmp_path / "b.xyz", both), "not named as a transform"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert ".partial" not in str(caught.value)
    assert not list(tmp_path.glob("b.*"))
