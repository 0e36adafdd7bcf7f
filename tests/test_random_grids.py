"""Images, points and fields on random grids, in 2D and 3D, are those of SimpleITK and ANTs.

``GRIDS=10000 python -m pytest tests/test_random_grids.py -s`` says how far they are from each other at most.
"""

import os

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from .random_transforms import itk_field, random_affine, random_field, random_image, run

MILLIMETRES, INTENSITY = 1e-3, 1e-4  # the largest differences, the second one as part of the range of intensities
ROUNDING = 1e-3  # voxels: this close to the end of an image, a point may be inside for one tool and outside for another

counts = pytest.mark.parametrize(
    "count", [150, pytest.param(int(os.environ.get("GRIDS", "1000")) // 2, marks=pytest.mark.slow)]
)
dimensions = pytest.mark.parametrize("dims", [2, 3])
tools = pytest.mark.parametrize("tool", ["SimpleITK", "ants"])


class RandomCase:
    """Two images, and a field followed by an affine map, all on their own grids, as files."""

    def __init__(self, folder, number, dims):
        random = np.random.default_rng((dims, number))
        self.dims, self.signs = dims, (-1, -1, 1)[:dims]
        self.moving, self.fixed, self.field, self.affine = (folder / f for f in ("m.nii", "f.nii", "d.nii", "a.mat"))
        self.images = {file: random_image(random, dims=dims) for file in (self.moving, self.fixed)}
        for file, image in self.images.items():
            nib.save(image, file)
        self.images[self.field] = random_field(random, self.field, dims)
        affine = random_affine(random, self.affine, dims)
        self.chain = sitk.CompositeTransform([affine, itk_field(self.field)])  # the last one is applied first
        self.points = random.uniform(-4, 4, (20, dims))

    def grid(self, file):
        affine = self.images[file].affine
        return affine[: self.dims, : self.dims], affine[: self.dims, 3], self.images[file].shape[: self.dims]

    @property
    def places(self):
        """The voxels of the fixed image in LPS, in the order of SimpleITK's arrays, (Z, Y, X, 3) or (Y, X, 2)."""
        linear, origin, shape = self.grid(self.fixed)
        voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        return np.moveaxis((voxels @ linear.T + origin) * self.signs, range(self.dims), range(self.dims)[::-1])

    def from_end(self, points, file):
        """The distance of points in LPS from the end of an image, in voxels of it."""
        linear, origin, shape = self.grid(file)
        voxels = (points * self.signs - origin) @ np.linalg.inv(linear).T
        ends = np.array([np.full(self.dims, -0.5), np.array(shape) - 0.5])
        return np.abs(voxels[..., None, :] - ends).min((-2, -1))


def second_tool():
    reason = "antspyx is not installed"
    return pytest.importorskip("ants", reason=reason), pytest.importorskip("pandas", reason=reason)


@counts
@dimensions
@tools
def test_images(tmp_path, count, dims, tool):
    ants, _ = second_tool() if tool == "ants" else (None, None)
    worst = 0.0
    for number in range(count):
        case, output = RandomCase(tmp_path, number, dims), tmp_path / f"w{number}.nii"
        files = {"moving": case.moving, "reference": case.fixed, "transform": [case.field, case.affine]}
        run("apply", **files, output=output, fill=-5)
        images = [sitk.ReadImage(str(file)) for file in (case.moving, case.fixed, output)]
        place = images[1].GetSize(), images[1].GetOrigin(), images[1].GetSpacing(), images[1].GetDirection()
        vectors = sitk.GetArrayFromImage(sitk.TransformToDisplacementField(case.chain, sitk.sitkVectorFloat64, *place))
        if ants:
            both = [ants.image_read(str(file)) for file in (case.fixed, case.moving)]
            steps = [str(case.field), str(case.affine)]
            expected = ants.apply_transforms(*both, steps, interpolator="linear", defaultvalue=-5).numpy().T
        else:
            expected = sitk.GetArrayFromImage(sitk.Resample(*images[:2], case.chain, sitk.sitkLinear, -5.0))
        for found, right in zip((images[2].GetOrigin(), images[2].GetDirection()), place[1::2]):
            assert found == pytest.approx(right, abs=1e-4)
        places = case.places
        ends = case.from_end(places, case.field), case.from_end(places + vectors, case.moving)
        clear = np.minimum(*ends) > ROUNDING
        assert clear.mean() > 0.95
        difference = np.abs(sitk.GetArrayFromImage(images[2]) - expected)[clear].max()
        worst = max(worst, difference / np.ptp(sitk.GetArrayFromImage(images[0])))
    print(f"\nimages, {dims}D, {count} grids, {tool}: {worst:.1e} of the range of intensities")
    assert worst < INTENSITY


@counts
@dimensions
@tools
def test_points(tmp_path, count, dims, tool):
    ants, pandas = second_tool() if tool == "ants" else (None, None)
    worst = 0.0
    for number in range(count):
        case, output = RandomCase(tmp_path, number, dims), tmp_path / f"q{number}.csv"
        np.savetxt(tmp_path / "p.csv", np.pad(case.points, ((0, 0), (0, 3 - dims))), delimiter=",", fmt="%.17g")
        files = {"images": [case.fixed, case.moving], "transform": [case.field, case.affine]}
        run("points", **files, points=tmp_path / "p.csv", frame="lps", output=output)
        if ants:
            table = pandas.DataFrame(case.points, columns=list("xyz")[:dims])
            expected = ants.apply_transforms_to_points(dims, table, [str(case.field), str(case.affine)]).to_numpy()
        else:
            expected = np.array([case.chain.TransformPoint(point) for point in case.points.tolist()])
        clear = case.from_end(case.points, case.field) > ROUNDING
        found = np.loadtxt(output, delimiter=",")[clear, :dims]
        worst = max(worst, np.abs(found - expected[clear]).max())
    print(f"\npoints, {dims}D, {count} grids, {tool}: {worst:.1e} mm")
    assert worst < MILLIMETRES


@counts
@dimensions
def test_fields(tmp_path, count, dims):
    worst = 0.0
    for number in range(count):
        case, output = RandomCase(tmp_path, number, dims), tmp_path / f"c{number}.nii"
        run("compose", transform=[case.field, case.affine], reference=case.fixed, output=output)
        image = sitk.ReadImage(str(output), sitk.sitkVectorFloat64)
        place = image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
        expected = sitk.TransformToDisplacementField(case.chain, sitk.sitkVectorFloat64, *place)
        places = case.places
        clear = case.from_end(places, case.field) > ROUNDING
        difference = np.abs(sitk.GetArrayFromImage(image) - sitk.GetArrayFromImage(expected))[clear].max()
        first = np.array(place[1]) - places[(0,) * dims]
        worst = max(worst, difference, np.abs(first).max())
    print(f"\nfields, {dims}D, {count} grids, SimpleITK: {worst:.1e} mm")
    assert worst < MILLIMETRES
