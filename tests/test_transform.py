"""The command on files: images, points, chains, inverses and formats, against SimpleITK and values by hand."""

import csv
import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from scripts import Registration
from scripts.deformation.formats import ddf_to_itk
from scripts.deformation.transform_files import read_transform
from scripts.support.bundle import BUNDLE_ROOT
from scripts.support.errors import InputError
from scripts.transform import main

from .random_transforms import itk_field, random_affine, random_image, run


def shifted_pair(tmp_path):
    """A moving image that is the fixed one moved by 3 voxels of 2 mm along R and -2 of 1 mm along A, and the field."""
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = (-11, 7, 40)
    fixed = np.zeros((16, 14, 10), np.float32)
    fixed[5:8, 6:9, 3:6] = np.arange(27).reshape(3, 3, 3) + 1
    moving = np.roll(fixed, (3, -2), (0, 1))
    for name, data in (("f", fixed), ("m", moving)):
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{name}.nii.gz")
    ddf = np.zeros((3, 16, 14, 10), np.float32)
    ddf[0], ddf[1] = 3, -2
    nib.save(ddf_to_itk(ddf, nib.load(tmp_path / "f.nii.gz")), tmp_path / "d.nii.gz")
    return fixed, tmp_path


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "label", "spline"])
def test_a_known_shift_by_every_interpolation(tmp_path, interpolation):
    fixed, folder = shifted_pair(tmp_path)
    run(
        "apply",
        moving=folder / "m.nii.gz",
        reference=folder / "f.nii.gz",
        transform=folder / "d.nii.gz",
        interpolation=interpolation,
        output=folder / "w.nii.gz",
    )
    found = nib.load(folder / "w.nii.gz")
    np.testing.assert_allclose(found.get_fdata()[4:9, 5:10], fixed[4:9, 5:10], atol=1e-4)
    assert found.get_data_dtype() == (np.int32 if interpolation in ("nearest", "label") else np.float32)


def test_a_point_of_the_fixed_image_goes_to_the_moving_image_and_the_inverse_brings_it_back(tmp_path):
    _, folder = shifted_pair(tmp_path)
    (folder / "p.csv").write_text("name,X,Y,Z\napex, 1.0 ,12.5,46\n")
    run("points", points=folder / "p.csv", transform=folder / "d.nii.gz", output=folder / "q.csv")
    (row,) = _rows(folder / "q.csv")
    assert row["name"] == "apex"
    assert [float(row[name]) for name in "XYZ"] == pytest.approx([1 + 6, 12.5 - 2, 46], abs=1e-4)
    run("points", points=folder / "q.csv", inverse=folder / "d.nii.gz", output=folder / "r.csv")
    (row,) = _rows(folder / "r.csv")
    assert [float(row[name]) for name in "XYZ"] == pytest.approx([1, 12.5, 46], abs=1e-3)


def test_slicers_points_say_their_frame_themselves(tmp_path):
    _, folder = shifted_pair(tmp_path)
    markups = {
        "markups": [{"coordinateSystem": "LPS", "controlPoints": [{"label": "a", "position": [-1.0, -12.5, 46]}]}]
    }
    (folder / "p.mrk.json").write_text(json.dumps(markups))
    (folder / "p.fcsv").write_text(
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n"
        "1,-1.0,-12.5,46,a\n"
    )
    for name in ("p.mrk.json", "p.fcsv"):
        run("points", points=folder / name, transform=folder / "d.nii.gz", output=folder / f"q_{name}")
    moved = json.loads((folder / "q_p.mrk.json").read_text())["markups"][0]["controlPoints"][0]
    assert moved["label"] == "a"
    assert moved["position"] == pytest.approx([-7, -10.5, 46], abs=1e-4)
    line = (folder / "q_p.fcsv").read_text().splitlines()[-1].split(",")
    assert (line[0], line[4]) == ("1", "a")
    assert [float(word) for word in line[1:4]] == pytest.approx([-7, -10.5, 46], abs=1e-4)


def test_a_gifti_surface_keeps_its_triangles(tmp_path):
    _, folder = shifted_pair(tmp_path)
    points = np.array([[1, 12.5, 46], [2, 13, 47], [3, 12, 48]], np.float32)
    arrays = [
        nib.gifti.GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(np.array([[0, 1, 2]], np.int32), intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nib.save(nib.gifti.GiftiImage(darrays=arrays), folder / "s.surf.gii")
    run("points", points=folder / "s.surf.gii", transform=folder / "d.nii.gz", output=folder / "t.surf.gii")
    moved, triangles = nib.load(folder / "t.surf.gii").agg_data()
    np.testing.assert_allclose(moved, points + np.array([6, -2, 0]), atol=1e-4)
    assert triangles.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("name", ["s.vtk", "s.vtp"])
def test_a_surface_of_vtk_in_either_frame(tmp_path, name):
    pyvista = pytest.importorskip("pyvista", reason="PyVista is not installed")
    _, folder = shifted_pair(tmp_path)
    points = np.array([[1, 12.5, 46], [2, 13, 47], [3, 12, 48]], np.float32)
    for frame, signs in (("ras", (1, 1, 1)), ("lps", (-1, -1, 1))):
        surface = pyvista.PolyData(points * np.array(signs, np.float32), faces=[3, 0, 1, 2])
        surface["thickness"] = np.array([1.0, 2, 3])
        surface.save(folder / name)
        files = {"points": folder / name, "transform": folder / "d.nii.gz", "output": folder / f"{frame}_{name}"}
        run("points", **files, frame=frame)
        moved = pyvista.read(folder / f"{frame}_{name}")
        np.testing.assert_allclose(moved.points * signs, points + np.array([6, -2, 0]), atol=1e-4)
        assert moved.regular_faces.tolist() == [[0, 1, 2]]
        assert moved["thickness"].tolist() == [1, 2, 3]


def test_a_series_keeps_its_frames_and_their_duration(tmp_path):
    fixed, folder = shifted_pair(tmp_path)
    moving = nib.load(folder / "m.nii.gz")
    series = nib.Nifti1Image(np.stack([moving.get_fdata(dtype=np.float32) * k for k in (1, 2)], -1), moving.affine)
    series.header.set_zooms((2, 1, 3, 0.04))
    series.header.set_xyzt_units("mm", "sec")
    nib.save(series, folder / "s.nii.gz")
    run(
        "apply",
        moving=folder / "s.nii.gz",
        reference=folder / "f.nii.gz",
        transform=folder / "d.nii.gz",
        output=folder / "w.nii.gz",
    )
    found = nib.load(folder / "w.nii.gz")
    assert found.shape == (16, 14, 10, 2)
    assert found.header.get_zooms() == pytest.approx((2, 1, 3, 0.04))
    np.testing.assert_allclose(found.get_fdata()[4:9, 5:10, :, 1], 2 * fixed[4:9, 5:10], atol=1e-4)


def test_what_lies_outside_is_the_smallest_value_or_what_is_asked_for(tmp_path):
    _, folder = shifted_pair(tmp_path)
    moving = nib.load(folder / "m.nii.gz")
    nib.save(nib.Nifti1Image(moving.get_fdata(dtype=np.float32) - 1000, moving.affine), folder / "ct.nii.gz")
    files = {"moving": folder / "ct.nii.gz", "reference": folder / "f.nii.gz", "transform": folder / "d.nii.gz"}
    run("apply", **files, output=folder / "a.nii.gz")
    run("apply", **files, output=folder / "b.nii.gz", fill=7)
    assert nib.load(folder / "a.nii.gz").get_fdata()[-1].tolist() == np.full((14, 10), -1000).tolist()
    assert nib.load(folder / "b.nii.gz").get_fdata()[-1].tolist() == np.full((14, 10), 7).tolist()


@pytest.mark.parametrize("name", ["a.tfm", "a.txt", "a.mat", "a.h5"])
def test_affine_maps_in_every_format_of_itk(tmp_path, name):
    random = np.random.default_rng(2)
    first, second = random_affine(random, tmp_path / "1.tfm"), random_affine(random, tmp_path / "2.txt")
    run("compose", transform=[tmp_path / "1.tfm", tmp_path / "2.txt"], output=tmp_path / name)
    point = (3.0, -7.0, 11.0)
    expected = second.TransformPoint(first.TransformPoint(point))
    assert sitk.ReadTransform(str(tmp_path / name)).TransformPoint(point) == pytest.approx(expected, abs=1e-6)


def test_a_field_as_a_chain_of_itk_and_as_a_ddf_of_monai(tmp_path):
    _, folder = shifted_pair(tmp_path)
    random_affine(np.random.default_rng(3), folder / "a.tfm")
    files = {"transform": [folder / "a.tfm", folder / "d.nii.gz"], "reference": folder / "f.nii.gz"}
    for name in ("both.nii.gz", "both.h5", "both.pt"):
        run("compose", **files, output=folder / name)
    field, itk = itk_field(folder / "both.nii.gz"), sitk.ReadTransform(str(folder / "both.h5"))
    fixed = sitk.ReadImage(str(folder / "f.nii.gz"))
    ddf = torch.load(folder / "both.pt")
    for voxel in ((3, 4, 5), (8, 7, 2)):
        point = fixed.TransformIndexToPhysicalPoint(voxel)
        moved = field.TransformPoint(point)
        assert itk.TransformPoint(point) == pytest.approx(moved, abs=1e-4)
        place = fixed.TransformPhysicalPointToContinuousIndex(moved)
        assert (np.array(voxel) + ddf[:, *voxel].numpy()) == pytest.approx(place, abs=1e-4)
    run("convert", transform=folder / "both.h5", reference=folder / "f.nii.gz", output=folder / "again.nii.gz")
    again = nib.load(folder / "again.nii.gz").get_fdata()
    np.testing.assert_allclose(again, nib.load(folder / "both.nii.gz").get_fdata(), atol=1e-4)


def test_images_and_transforms_in_two_dimensions(tmp_path):
    affine = np.diag([2.0, 1, 1, 1])  # the moving image is the fixed one moved by 3 voxels along R and -2 along A
    fixed = np.zeros((16, 14), np.float32)
    fixed[5:8, 6:9] = np.arange(9).reshape(3, 3) + 1
    for name, data in (("f", fixed), ("m", np.roll(fixed, (3, -2), (0, 1)))):
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{name}.nii")
    shift = sitk.AffineTransform(2)
    shift.SetTranslation((-6.0, 2.0))  # LPS
    sitk.WriteTransform(shift, str(tmp_path / "a.mat"))
    grids = {"reference": tmp_path / "f.nii", "images": [tmp_path / "f.nii", tmp_path / "m.nii"]}
    for name in ("a.tfm", "d.nii.gz", "d.pt"):
        run("convert", transform=tmp_path / "a.mat", **grids, output=tmp_path / name)
    run("convert", transform=tmp_path / "d.nii.gz", **grids, output=tmp_path / "d.h5")
    for name in ("a.mat", "a.tfm", "d.nii.gz", "d.h5", "d.pt"):
        files = {"moving": tmp_path / "m.nii", "reference": tmp_path / "f.nii", "transform": tmp_path / name}
        run("apply", **files, output=tmp_path / f"{name}.nii")
        found = nib.load(tmp_path / f"{name}.nii")
        assert found.shape == (16, 14)
        np.testing.assert_allclose(found.get_fdata()[4:9, 5:10], fixed[4:9, 5:10], atol=1e-4)
    assert sitk.ReadTransform(str(tmp_path / "d.h5")).TransformPoint((-8.0, -7.0)) == pytest.approx((-14, -5), abs=1e-5)
    ddf = torch.load(tmp_path / "d.pt")
    torch.testing.assert_close(ddf, torch.tensor([3.0, -2.0]).view(2, 1, 1).expand(2, 16, 14))


def test_the_inverse_of_a_smooth_field_leads_back(tmp_path):
    random = np.random.default_rng(4)
    grid = random_image(random, (20, 18, 16))
    place = np.stack(np.meshgrid(*[np.linspace(0, np.pi, n) for n in grid.shape], indexing="ij"))
    bump = np.prod(np.sin(place), axis=0)
    nib.save(ddf_to_itk(np.stack([2 * bump, -1.5 * bump, bump]).astype(np.float32), grid), tmp_path / "d.nii")
    nib.save(grid, tmp_path / "f.nii")
    run("invert", transform=tmp_path / "d.nii", reference=tmp_path / "f.nii", output=tmp_path / "i.nii")
    there, back = itk_field(tmp_path / "d.nii"), itk_field(tmp_path / "i.nii")
    fixed = sitk.ReadImage(str(tmp_path / "f.nii"))
    misses = []
    for voxel in random.integers(4, 12, (200, 3)).tolist():
        point = fixed.TransformIndexToPhysicalPoint(voxel)
        misses.append(np.subtract(there.TransformPoint(back.TransformPoint(point)), point))
    assert np.linalg.norm(misses, axis=1).max() < 0.01  # mm; between its voxels, the inverse is interpolated
    direct = read_transform(tmp_path / "d.nii")
    points = torch.tensor([fixed.TransformIndexToPhysicalPoint((9, 8, 7))], dtype=torch.float64).T
    torch.testing.assert_close(direct.inverse()(direct(points)), points, atol=5e-3, rtol=0)


def test_volume_changes_of_a_known_scaling(tmp_path):
    grid = nib.Nifti1Image(np.zeros((12, 12, 12), np.float32), np.diag([2.0, 2, 2, 1]))
    label = np.zeros((12, 12, 12), np.int16)
    label[3:6, 3:6, 3:6], label[7:9, 7:9, 7:9] = 1, 5
    nib.save(grid, tmp_path / "f.nii")
    nib.save(nib.Nifti1Image(label, grid.affine), tmp_path / "l.nii")
    scaling = sitk.AffineTransform(3)
    scaling.SetMatrix(np.diag([1.1, 0.9, 1.2]).flatten().tolist())
    sitk.WriteTransform(scaling, str(tmp_path / "a.tfm"))
    files = {"transform": tmp_path / "a.tfm", "reference": tmp_path / "f.nii", "label": tmp_path / "l.nii"}
    run("jacobian", **files, output=tmp_path / "j.nii.gz")
    np.testing.assert_allclose(nib.load(tmp_path / "j.nii.gz").get_fdata(), 1.1 * 0.9 * 1.2, atol=1e-5)
    rows = _rows(tmp_path / "j.csv")
    assert [row["label"] for row in rows] == ["1", "5"]
    assert float(rows[0]["volume_ml"]) == pytest.approx(27 * 8 / 1000)
    assert float(rows[1]["change_percent"]) == pytest.approx(18.8, abs=1e-3)
    main(
        [
            "jacobian",
            "--log",
            *(w for k, v in files.items() for w in (f"--{k}", str(v))),
            "--output",
            f"{tmp_path}/k.nii",
        ]
    )
    np.testing.assert_allclose(nib.load(tmp_path / "k.nii").get_fdata(), np.log(1.188), atol=1e-5)


def test_the_jacobian_of_an_image_of_two_axes_a_slice_and_a_series(tmp_path):
    scaling = sitk.AffineTransform(3)
    scaling.SetMatrix(np.diag([1.5, 0.5, 2]).flatten().tolist())
    sitk.WriteTransform(scaling, str(tmp_path / "a.tfm"))
    for number, (shape, expected) in enumerate((((6, 5), 0.75), ((6, 5, 1), 0.75), ((6, 5, 4, 2), 1.5))):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), tmp_path / f"f{number}.nii")
        files = {"transform": tmp_path / "a.tfm", "reference": tmp_path / f"f{number}.nii"}
        run("jacobian", **files, output=tmp_path / f"j{number}.nii")
        found = nib.load(tmp_path / f"j{number}.nii")
        assert found.shape == shape[:3]
        np.testing.assert_allclose(found.get_fdata(), expected, atol=1e-6)
    nib.save(nib.Nifti1Image(np.ones((6, 5, 1), np.int16), np.eye(4)), tmp_path / "l.nii")
    files = {"transform": tmp_path / "a.tfm", "reference": tmp_path / "f1.nii", "label": tmp_path / "l.nii"}
    (tmp_path / "k.csv").write_text("mine")
    with pytest.raises(InputError, match=r"k.csv exists: expected another name, or --overwrite"):
        run("jacobian", **files, output=tmp_path / "k.nii")
    with pytest.raises(InputError, match=r"f1.nii has shape \(6, 5, 1\): expected two voxels along each axis"):
        run("jacobian", **files, output=tmp_path / "i.nii", spatial_dims=3)
    assert (tmp_path / "k.csv").read_text() == "mine"
    assert not (tmp_path / "k.nii").exists()


def test_bad_input_is_refused_in_one_line_and_nothing_is_written(tmp_path):
    _, folder = shifted_pair(tmp_path)
    (folder / "torn.tfm").write_text("#Insight Transform File V1.0\nTransform: Nonsense")
    (folder / "p.csv").write_text("a,b\n1,2\n")
    (folder / "empty.csv").write_text("x,y,z\n")
    sitk.WriteTransform(sitk.AffineTransform(2), str(folder / "flat.tfm"))
    moving, fixed, field = (folder / name for name in ("m.nii.gz", "f.nii.gz", "d.nii.gz"))
    out = folder / "out.nii.gz"
    apply = {"moving": moving, "reference": fixed, "output": out}
    for command, options, message in (
        ("apply", apply, "no transform"),
        ("apply", apply | {"transform": folder / "no.nii.gz"}, "no.nii.gz does not exist"),
        ("apply", apply | {"transform": moving}, "expected a displacement field"),
        ("apply", apply | {"transform": folder / "torn.tfm"}, "cannot be read as a transform"),
        ("apply", apply | {"transform": folder / "flat.tfm"}, "in 2D: expected one in 3D"),
        ("apply", apply | {"transform": folder / "p.csv"}, "not named as a transform"),
        ("apply", apply | {"transform": field, "output": [out, folder / "b.nii.gz"]}, "expected one for each"),
        ("apply", apply | {"transform": field, "output": moving}, "is an input"),
        ("apply", apply | {"transform": field, "output": folder / "w.png"}, "not named as a NIfTI file"),
        ("apply", apply | {"transform": field, "moving": [moving, moving], "output": [out, out]}, "is named twice"),
        ("apply", {"moving": moving, "output": out, "transform": field}, "--reference is missing"),
        ("apply", {"datalist": folder / "p.csv"}, "p.csv is not valid JSON"),
        ("apply", {"datalist": folder / "p.csv", "fill": 0}, "--datalist and --fill were both given"),
        ("apply", {"datalist": folder / "p.csv", "transform": field}, "--datalist and --transform were both given"),
        ("jacobian", {"transform": field, "reference": fixed, "output": folder / "j.csv"}, "not named as a NIfTI file"),
        ("points", {"points": folder / "p.csv", "transform": field, "output": folder / "q.csv"}, "expected x, y and z"),
        ("points", {"points": folder / "empty.csv", "transform": field, "output": folder / "q.csv"}, "no points"),
        ("compose", {"transform": field, "output": folder / "c.nii.gz"}, "expected --reference"),
        ("compose", {"transform": field, "reference": fixed, "output": folder / "c.tfm"}, "is a field"),
    ):
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises(InputError, match=message):
            run(command, **options)
        assert sorted(path.name for path in folder.iterdir()) == before
    (folder / "out.nii.gz").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists: expected another name, or --overwrite"):
        run("apply", **apply, transform=field)
    assert (folder / "out.nii.gz").read_bytes() == b"mine"


def test_a_list_of_jobs_does_what_the_options_do(tmp_path):
    fixed, folder = shifted_pair(tmp_path)
    label = nib.load(folder / "m.nii.gz")
    nib.save(nib.Nifti1Image(label.get_fdata().astype(np.int16), label.affine), folder / "l.nii.gz")
    random_affine(np.random.default_rng(0), folder / "a.mat")
    jobs = [
        {"moving": "m.nii.gz", "reference": "f.nii.gz", "transform": "d.nii.gz", "output": "out/0.nii.gz", "fill": 7},
        {
            "moving": ["m.nii.gz", str(folder / "l.nii.gz")],
            "reference": "f.nii.gz",
            "transform": ["d.nii.gz", "a.mat", {"inverse": "a.mat"}],  # a chain that is the shift again
            "output": ["out/1.nii.gz", "out/2.nii.gz"],
            "interpolation": "nearest",
        },
        {"moving": "f.nii.gz", "reference": "m.nii.gz", "transform": {"inverse": "d.nii.gz"}, "output": "out/3.nii.gz"},
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    run("apply", datalist=folder / "jobs.json")
    found = [nib.load(folder / "out" / f"{number}.nii.gz") for number in range(4)]
    for image in found[:3]:
        np.testing.assert_allclose(image.get_fdata()[4:9, 5:10], fixed[4:9, 5:10], atol=1e-4)
    assert found[0].get_fdata()[-1].min() == 7
    assert [image.get_data_dtype() for image in found[1:3]] == [np.int32, np.int32]
    back = nib.load(folder / "m.nii.gz").get_fdata()
    np.testing.assert_allclose(found[3].get_fdata()[7:12, 4:7], back[7:12, 4:7], atol=1e-3)
    with pytest.raises(InputError, match=r"0.nii.gz exists: expected another name, or --overwrite"):
        run("apply", datalist=folder / "jobs.json")
    main(["apply", "--datalist", str(folder / "jobs.json"), "--overwrite"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moving": None}, "jobs.json, entry 1 has no 'moving'"),
        ({"moving": "no.nii.gz"}, "no.nii.gz does not exist"),
        ({"moving": "nan.nii.gz"}, "nan.nii.gz holds NaN"),
        ({"moving": ["m.nii.gz", "f.nii.gz"]}, "jobs.json, entry 1: found 2 moving images and 1 outputs"),
        ({"moving": 5}, "jobs.json, entry 1, moving is 5: expected the name"),
        ({"reference": ["f.nii.gz", "m.nii.gz"]}, "jobs.json, entry 1: expected one file as reference"),
        ({"transform": "f.nii.gz"}, "expected a displacement field"),
        ({"transform": {"back": "d.nii.gz"}}, "jobs.json, entry 1, transform is {'back'"),
        ({"inverse": "d.nii.gz"}, "jobs.json, entry 1 has the unknown key 'inverse': .*, or {\"inverse\": FILE}"),
        ({"images": "f.nii.gz"}, "jobs.json, entry 1: expected one file as reference, and two as images"),
        ({"output": "0.nii.gz"}, "is named twice"),
        ({"output": "m.nii.gz"}, "is an input"),
        ({"output": "w.png"}, "not named as a NIfTI file"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic'"),
        ({"interpolation": ["label"]}, "unknown interpolation"),
        ({"moving": "thin.nii.gz", "interpolation": "spline"}, "a spline needs 4 voxels"),
        ({"moving": "half.nii.gz", "interpolation": "label"}, "holds fractions"),
        ({"fill": "black"}, "jobs.json, entry 1 has the fill 'black': expected a number"),
        (None, "jobs.json, entry 1 is a NoneType: expected a dictionary"),
    ],
)
def test_a_wrong_job_is_refused_before_the_first_is_done(tmp_path, change, message):
    _, folder = shifted_pair(tmp_path)
    for name, data in (
        ("nan", np.full((4, 4, 4), np.nan)),
        ("thin", np.zeros((4, 4, 2))),
        ("half", np.full((4, 4, 4), 0.5)),
    ):
        nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), folder / f"{name}.nii.gz")
    job = {"moving": "m.nii.gz", "reference": "f.nii.gz", "transform": "d.nii.gz", "output": "0.nii.gz"}
    jobs = [job, None if change is None else job | {"output": "1.nii.gz"} | change]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        run("apply", datalist=folder / "jobs.json")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.slow
def test_the_examples_of_the_document(tmp_path, monkeypatch):
    root = Path(BUNDLE_ROOT)
    text = (root / "docs" / "transforms.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [
        shlex.split(line)[3:]
        for line in lines
        if line.startswith("python -m scripts.transform") and " a.lta " not in line
    ]
    heart = root / "tests" / "data" / "sunnybrook" / "SC-N-10"
    result = Registration.load("cardiac")(heart / "SC-N-10_ED.nii.gz", heart / "SC-N-10_ES.nii.gz")
    (tmp_path / "tests").symlink_to(root / "tests")
    monkeypatch.chdir(tmp_path)
    result.save("eval/pair")
    crops = root / "tests" / "data" / "hippocampus"
    files = [crops / name / "t1.nii.gz" for name in ("hippocampus_327", "hippocampus_341")]
    aligned = Registration.load("hippocampus")(*files)
    aligned.save("eval/crops")
    (tmp_path / "eval" / "points.csv").write_text(re.search(r'echo "(.*?)"', text, re.DOTALL)[1])
    for content, file in re.findall(r"echo '(.*?)' > (\S+)", text, re.DOTALL):
        (tmp_path / file).write_text(content)
    for words in commands:
        main(words)
    assert len(commands) == 13
    again = nib.load("eval/crops/again.nii.gz").get_fdata()
    np.testing.assert_allclose(again, np.asarray(aligned.warped)[0], atol=1e-3 * np.ptp(again))
    shift = sitk.ReadTransform("eval/crops/alignment.mat").TransformPoint((0.0, 0.0, 0.0))
    assert np.linalg.norm(shift) > 1
    once, again = (nib.load(f"eval/carried/{name}.nii.gz").get_fdata() for name in ("label", "first"))
    np.testing.assert_array_equal(once, again)
    warped, carried = (nib.load(f"eval/{name}.nii.gz").get_fdata() for name in ("pair/moving_warped", "carried/image"))
    inside = np.asarray(result.ddf)[2] == 0
    np.testing.assert_allclose(carried[inside], warped[inside], atol=1e-3 * np.ptp(warped))
    cavity = nib.load("eval/carried/label.nii.gz").get_fdata() == 1
    truth = nib.load(heart / "SC-N-10_ED_gt.nii.gz").get_fdata() == 1
    assert 2 * (cavity & truth).sum() / (cavity.sum() + truth.sum()) > 0.9
    determinant = nib.load("eval/jacobian.nii.gz").get_fdata()
    np.testing.assert_allclose(determinant, nib.load("eval/pair/jacobian_determinant.nii.gz").get_fdata(), atol=1e-3)
    (row,) = _rows("eval/jacobian.csv")
    assert float(row["change_percent"]) < -20  # the cavity at end-systole
    (first,), (moved,), (again,) = (
        _rows(f"eval/{name}.csv") for name in ("points", "points_in_moving", "points_again")
    )
    places = [[float(row[axis]) for axis in "xyz"] for row in (first, moved, again)]
    assert np.linalg.norm(np.subtract(places[0], places[1])) > 1
    assert places[2] == pytest.approx(places[0], abs=0.01)


def _rows(file):
    with open(file) as stream:
        return list(csv.DictReader(stream))
