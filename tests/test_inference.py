"""``inference.yaml`` on real files: outputs, geometry, lists of pairs, and bad input through the real command."""

import json
import subprocess
import sys
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.bundle import ckpt_export
from scipy.ndimage import map_coordinates

from scripts.networks import read_network
from scripts.results.names import USUAL

from .conftest import ROOT, blobs, load_json, message_of, oblique_affine

CARDIAC = "SC-HF-NI-15/SC-HF-NI-15"


def cardiac_pair(samples):
    path = samples / "sunnybrook" / CARDIAC
    return {
        "fixed": f"{path}_ED.nii.gz",
        "moving": f"{path}_ES.nii.gz",
        "label_fixed": f"{path}_ED_gt.nii.gz",
        "label_moving": f"{path}_ES_gt.nii.gz",
    }


def test_a_cardiac_pair_gives_seven_files_on_the_fixed_grid(infer, samples, tmp_path):
    pair = cardiac_pair(samples)
    infer(**pair, output_dir=str(tmp_path / "out"))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted({*USUAL} - {"alignment.mat"})
    fixed = nib.load(pair["fixed"])
    for name in USUAL[:5]:
        image = nib.load(tmp_path / "out" / name)
        assert image.shape[:3] == fixed.shape
        np.testing.assert_allclose(image.affine, fixed.affine, atol=1e-4)
        assert sitk.ReadImage(str(tmp_path / "out" / name)).GetSize() == fixed.shape
    displacement = nib.load(tmp_path / "out" / "displacement.nii.gz").get_fdata()
    assert displacement.shape == (*fixed.shape, 1, 3)
    assert (displacement[..., 2] == 0).all(), "a 2D model must not move through the plane"
    metrics = load_json(tmp_path / "out" / "metrics.json")
    assert metrics["dice"]["after"]["mean"] > metrics["dice"]["before"]["mean"] + 0.1
    assert metrics["ncc"]["after"] > metrics["ncc"]["before"]
    assert metrics["folding"]["whole_grid"]["folding_percent"] < 0.5
    assert metrics["inverse"]["residual_mean_mm"] < 0.05
    assert set(metrics["seconds"]) == {"read", "network", "native_grid", "write"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overlay", "folder", "gain"), [("hippocampus", "hippocampus", 0.05), ("brain", "brain_synthetic", 0.03)]
)
def test_the_3d_models_improve_the_shipped_samples(infer, samples, tmp_path, overlay, folder, gain):
    infer(overlay, datalist=str(samples / folder / "pairs.json"), output_dir=str(tmp_path))
    results = [load_json(path) for path in tmp_path.rglob("metrics.json")]
    assert len(results) == len(load_json(samples / folder / "pairs.json"))
    for metrics in results:
        assert metrics["dice"]["after"]["mean"] > metrics["dice"]["before"]["mean"] + gain
        assert metrics["folding"]["whole_grid"]["folding_percent"] < 0.5


def test_the_exported_network_gives_the_same_files(infer, samples, tmp_path):
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(ROOT / "models" / "model.pt"),
        meta_file=str(ROOT / "configs" / "metadata.json"),
        config_file=str(ROOT / "configs" / "inference.yaml"),
    )
    pair = cardiac_pair(samples)
    infer(**pair, output_dir=str(tmp_path / "python"))
    infer("inference_ts", **pair, weights=str(tmp_path / "model.ts"), output_dir=str(tmp_path / "script"))
    expected, found = (nib.load(tmp_path / name / "displacement.nii.gz").get_fdata() for name in ("python", "script"))
    # rounding decides the derivative at lattice points of the moving image: a few voxels in 10^5 differ by micrometres
    difference = np.abs(found - expected)  # mm
    assert np.percentile(difference, 99.9) < 1e-3
    assert difference.max() < 1e-2


UNGATED = {"network_def#regularizer#0#gate": False}  # its explicit step is zero, which would close the gate


def shift_weights(path, shift):
    """Weights of ``hippocampus.yaml`` without its gate: every pair gets one shift, in voxels of the network's grid."""
    net = read_network(ROOT / "configs" / "hippocampus.yaml")
    for blocks in net.levels:
        blocks[0].step_size.data.zero_()
    for parameter in net.levels[0][0].regularizer.parameters():
        parameter.data.zero_()
    # four applications at the coarser of two levels, doubled once: 8 times the bias
    net.levels[0][0].regularizer.convs[-1].bias.data = -torch.tensor(shift) / 8
    torch.save(net.state_dict(), path)
    return str(path)


def test_simpleitk_applies_the_displacement_and_finds_our_image(infer, save, tmp_path):
    """The proof of the file format: flipped, anisotropic, oblique grids and a known non-symmetric shift."""
    fixed_affine = oblique_affine((1.0, 1.5, 2.0), (20, -15, 10), (25, -15), (-1, 1, 1))
    moving_affine = oblique_affine((1.2, 1.0, 1.4), (-18, -20, -10), (-10, 20), (1, 1, 1))
    # both centred on the same world point
    fixed_shape, moving_shape = (40, 30, 24), (44, 46, 40)
    for affine, shape in ((fixed_affine, fixed_shape), (moving_affine, moving_shape)):
        affine[:3, 3] = np.array([5, -8, 3]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    moving = blobs(moving_shape, 1)
    label = (moving > 500).astype(np.uint8) + 2 * (moving > 700).astype(np.uint8)
    files = {
        "fixed": save("fixed.nii.gz", blobs(fixed_shape), fixed_affine),
        "moving": save("moving.nii.gz", moving, moving_affine),
        "label_moving": save("label.nii.gz", label, moving_affine),
    }
    # in voxels of the network's grid: 1 mm along the fixed image's axes, pointing to R, A and S
    shift = (3.0, -4.0, 5.0)
    shift_ras = oblique_affine((1, 1, 1), (0, 0, 0), (25, -15), (1, 1, 1))[:3, :3] @ shift
    weights = shift_weights(tmp_path / "shift.pt", shift)
    infer("hippocampus", **files, **UNGATED, alignment="world", weights=weights, output_dir=str(tmp_path / "out"))

    field = sitk.ReadImage(str(tmp_path / "out" / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    np.testing.assert_allclose(field[20, 15, 12], shift_ras * [-1, -1, 1], atol=1e-3)  # LPS
    transform = sitk.DisplacementFieldTransform(sitk.Image(field))
    fixed = sitk.ReadImage(files["fixed"], sitk.sitkFloat32)
    for key, output, interpolator in (
        ("moving", "moving_warped", sitk.sitkLinear),
        ("label_moving", "label_warped", sitk.sitkNearestNeighbor),
    ):
        source = sitk.ReadImage(files[key], sitk.sitkFloat32)
        expected = sitk.GetArrayFromImage(sitk.Resample(source, fixed, transform, interpolator, 0.0))
        ours = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"{output}.nii.gz"), sitk.sitkFloat32))
        assert (ours > 0).mean() > 0.3
        if key == "moving":
            assert np.abs(ours - expected).mean() < 0.005 * np.ptp(moving)
            assert np.quantile(np.abs(ours - expected), 0.999) < 0.01 * np.ptp(moving)
        else:
            assert (ours != expected).mean() < 0.001

    # and against nothing but numpy: warped(x) = moving(A_m^-1 (A_f x + shift))
    index = np.array([17, 12, 9, 1])
    world = fixed_affine @ index + [*shift_ras, 0]
    value = map_coordinates(moving.astype(float), (np.linalg.solve(moving_affine, world)[:3])[:, None], order=1)[0]
    warped = nib.load(tmp_path / "out" / "moving_warped.nii.gz").get_fdata()[17, 12, 9]
    assert warped == pytest.approx(value, abs=0.5)


def test_the_inverse_file_undoes_the_displacement(infer, save, tmp_path):
    affine = oblique_affine((1.0, 1.5, 2.0), (0, 0, 0), (25, -15), (-1, 1, 1))
    files = {
        key: save(f"{key}.nii.gz", blobs((36, 28, 20), seed), affine) for seed, key in enumerate(("fixed", "moving"))
    }
    weights = shift_weights(tmp_path / "shift.pt", (2.0, 1.0, -3.0))
    infer("hippocampus", **files, **UNGATED, weights=weights, output_dir=str(tmp_path / "out"))
    forward, inverse = (
        sitk.DisplacementFieldTransform(
            sitk.ReadImage(str(tmp_path / "out" / f"displacement{suffix}.nii.gz"), sitk.sitkVectorFloat64)
        )
        for suffix in ("", "_inverse")
    )
    point = sitk.ReadImage(files["fixed"]).TransformContinuousIndexToPhysicalPoint((18.0, 14.0, 10.0))
    assert forward.TransformPoint(inverse.TransformPoint(point)) == pytest.approx(point, abs=0.02)


def test_center_alignment_brings_distant_crops_together(infer, samples, tmp_path, save):
    """The same crop 300 mm away: centre alignment makes the result what it would be without the distance."""
    folder = samples / "hippocampus"
    pair = load_json(folder / "pairs.json")[0]
    fixed, moving = (str(folder / pair[key]) for key in ("fixed", "moving"))
    image = nib.load(moving)
    affine = image.affine.copy()
    affine[:3, 3] += (300, -50, 20)
    far = save("far.nii.gz", image.get_fdata(dtype=np.float32), affine)
    infer("hippocampus", fixed=fixed, moving=moving, output_dir=str(tmp_path / "near"))
    infer("hippocampus", fixed=fixed, moving=far, output_dir=str(tmp_path / "far"))
    near, distant = (nib.load(tmp_path / name / "moving_warped.nii.gz").get_fdata() for name in ("near", "far"))
    assert np.abs(near - distant).mean() < 0.005 * np.ptp(near)
    fields = [nib.load(tmp_path / name / "displacement.nii.gz").get_fdata() for name in ("near", "far")]
    np.testing.assert_allclose((fields[1] - fields[0]).mean((0, 1, 2, 3)), (-300, 50, 20), atol=0.1)
    assert "do not overlap" in message_of(
        lambda: infer("hippocampus", fixed=fixed, moving=far, alignment="world", output_dir=str(tmp_path / "none"))
    )


def test_a_single_2d_slice(infer, samples, save, tmp_path):
    pair = cardiac_pair(samples)
    files = {
        key: save(f"{key}.nii.gz", np.asarray(nib.load(path).dataobj)[:, :, 3], np.diag([1.37, 1.37, 1, 1]))
        for key, path in pair.items()
    }
    infer(**files, output_dir=str(tmp_path / "out"))
    assert nib.load(tmp_path / "out" / "moving_warped.nii.gz").shape == (160, 160)
    assert sitk.ReadImage(str(tmp_path / "out" / "displacement.nii.gz")).GetNumberOfComponentsPerPixel() == 2
    metrics = load_json(tmp_path / "out" / "metrics.json")
    assert metrics["dice"]["after"]["1"] > metrics["dice"]["before"]["1"]


def test_a_moving_stack_on_another_grid(infer, samples, save, tmp_path):
    """Cropped and flipped, data and header alike: the world has not changed, nor may the result."""
    pair = cardiac_pair(samples)
    infer(**pair, output_dir=str(tmp_path / "plain"))
    files = dict(pair)
    for key in ("moving", "label_moving"):
        image = nib.load(pair[key]).slicer[10:150, 5:155]
        flipped = nib.as_closest_canonical(image).as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
        files[key] = save(f"{key}.nii.gz", np.asarray(flipped.dataobj), flipped.affine)
    infer(**files, output_dir=str(tmp_path / "other"))
    dice = [load_json(tmp_path / name / "metrics.json")["dice"]["after"]["1"] for name in ("plain", "other")]
    assert dice[1] == pytest.approx(dice[0], abs=0.02)


def test_half_precision_and_another_network_grid(infer, samples, tmp_path):
    pair = cardiac_pair(samples)
    infer(**pair, amp="true", device="cpu", spacing=[2, 2, -1], spatial_size=[100, 90, -1], output_dir=str(tmp_path))
    dice = load_json(tmp_path / "metrics.json")["dice"]
    assert dice["after"]["1"] > dice["before"]["1"] + 0.1


def test_the_same_command_gives_the_same_numbers(infer, samples, tmp_path):
    pair = cardiac_pair(samples)
    for name in ("a", "b"):
        infer(**pair, output_dir=str(tmp_path / name))
    first, second = (load_json(tmp_path / name / "metrics.json") for name in ("a", "b"))
    for metrics in (first, second):
        del metrics["seconds"]
    assert first == second


def test_a_list_goes_on_after_a_failure_skips_what_is_done_and_says_so(infer, samples, tmp_path, caplog):
    good = {**cardiac_pair(samples), "name": "good"}
    bad = {"fixed": good["fixed"], "moving": str(tmp_path / "none.nii.gz"), "name": "bad"}
    last = {**good, "name": "deep/last"}
    datalist = tmp_path / "pairs.json"
    datalist.write_text(json.dumps([bad, good, last]))
    out = tmp_path / "out"
    caplog.set_level("INFO", "scripts")

    def run():
        infer(datalist=str(datalist), output_dir=str(out))

    assert message_of(run) == "1 of 3 pairs failed: bad."
    assert "pair bad failed: moving: " in caplog.text
    assert "none.nii.gz does not exist" in caplog.text
    assert not (out / "bad").exists()
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert len(stamps) == 14
    assert message_of(run) == "1 of 3 pairs failed: bad."
    assert "registered 0, skipped 2 finished, failed 1" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == stamps


def test_names_of_bids_derivatives(infer, samples, tmp_path, caplog):
    crops = samples / "hippocampus"
    pair = {"fixed": tmp_path / "sub-01_ses-1_T1w.nii.gz", "moving": tmp_path / "sub-02_ses-1_T1w.nii.gz"}
    for file, subject in zip(pair.values(), ("hippocampus_327", "hippocampus_341")):
        file.symlink_to(crops / subject / "t1.nii.gz")
    options = {**{key: str(file) for key, file in pair.items()}, "output_dir": str(tmp_path / "out"), "names": "bids"}
    options["outputs"] = ["moving_warped", "displacement", "displacement_inverse", "alignment"]
    infer("hippocampus", **options)
    found = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert set(found) == {
        "sub-02_ses-1_space-sub01_desc-warped_T1w.nii.gz",
        "sub-02_ses-1_from-sub02_to-sub01_mode-image_xfm.nii.gz",
        "sub-02_ses-1_from-sub01_to-sub02_mode-image_xfm.nii.gz",
        "sub-02_ses-1_from-sub02_to-sub01_mode-image_desc-alignment_xfm.mat",
        "metrics.json",
    }
    field = sitk.ReadImage(str(found["sub-02_ses-1_from-sub02_to-sub01_mode-image_xfm.nii.gz"]), sitk.sitkVectorFloat64)
    images = [sitk.ReadImage(str(pair[key])) for key in ("moving", "fixed")]
    expected = sitk.Resample(*images, sitk.DisplacementFieldTransform(field), sitk.sitkLinear)
    warped = nib.load(found["sub-02_ses-1_space-sub01_desc-warped_T1w.nii.gz"]).get_fdata()
    difference = np.abs(sitk.GetArrayFromImage(expected).T - warped)
    assert np.percentile(difference, 99) < 0.01 * np.ptp(warped)
    caplog.set_level("INFO", "scripts")
    infer("hippocampus", **options)
    assert "registered 0, skipped 1 finished, failed 0" in caplog.text
    infer("hippocampus", **options | {"names": None, "overwrite": "true"})
    assert {path.name.partition(".")[0] for path in (tmp_path / "out").iterdir()} == {*options["outputs"], "metrics"}


def test_every_bad_input_ends_in_one_line_and_without_output(infer, samples, save, tmp_path):
    pair = cardiac_pair(samples)
    fixed = pair["fixed"]
    whole = (samples / "sunnybrook" / f"{CARDIAC}_ES.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-200])
    bad_value = np.ones((8, 8, 3), np.float32)
    bad_value[1, 2, 1] = np.inf
    cases = {
        "cannot be read as NIfTI": {"moving": str(tmp_path / "cut.nii.gz")},
        "does not exist": {"moving": str(tmp_path / "none.nii.gz")},
        "4D image of shape (8, 8, 3, 2): expected 3D": {"moving": save("4d.nii", np.ones((8, 8, 3, 2)))},
        "is constant": {key: save(f"{key}.nii", np.ones((8, 8, 3))) for key in ("fixed", "moving")},
        "1 infinite values": {"moving": save("infinite.nii", bad_value)},
        "complex64": {"moving": save("complex.nii", np.ones((8, 8, 3), np.complex64))},
        "do not overlap": {"moving": save("far.nii", blobs((8, 8, 3)), np.diag([-1.0, 1, 8, 1]) * 1.0)},
        "expected (160, 160, 7), the grid of": {"label_fixed": save("label.nii", np.ones((8, 8, 3), np.uint8))},
        "weights: ": {"weights": str(tmp_path / "none.pt")},
        "unknown similarity 'mi'": {"network_def#step": {"_target_": "scripts.networks.Gradient", "similarity": "mi"}},
        "unknown alignment": {"alignment": "nowhere"},
        "--overwrite is 'maybe'": {"overwrite": "maybe"},
        "--names is 'long'": {"names": "long"},
        "nothing to register: expected --fixed and --moving, or --datalist": {"fixed": None, "moving": None},
    }
    for expected, options in cases.items():
        options = {"fixed": fixed, "moving": pair["moving"], **options}
        message = message_of(lambda options=options: infer(**options, output_dir=str(tmp_path / "out")))
        assert expected in message
        assert not list((tmp_path / "out").rglob("*")), message


def test_weights_of_another_configuration_and_a_2d_image_to_a_3d_model(infer, samples, save, tmp_path):
    pair = {key: cardiac_pair(samples)[key] for key in ("fixed", "moving")}
    out = str(tmp_path / "out")
    weights = str(ROOT / "models" / "model.pt")
    assert "of another network configuration" in message_of(
        lambda: infer("hippocampus", **pair, weights=weights, output_dir=out)
    )
    flat = save("flat.nii.gz", blobs((20, 20, 1)))
    assert "is a 2D image of shape (20, 20, 1): this model expects 3D volumes" in message_of(
        lambda: infer("hippocampus", fixed=flat, moving=flat, output_dir=out)
    )


@pytest.mark.slow
def test_the_real_command_reports_in_one_line_and_exits_with_1(samples, tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(ROOT / "configs" / "inference.yaml")]
    (tmp_path / "file").write_text("")
    pair = cardiac_pair(samples)
    cases = {
        f"error: fixed: {tmp_path}/none.nii.gz does not exist": ["--fixed", f"{tmp_path}/none.nii.gz"],
        "error: unknown option --fixd: did you mean --fixed?": ["--fixd", pair["fixed"]],
        f"error: output_dir: {tmp_path}/file/out cannot be written to (Not a directory).": [
            *["--fixed", pair["fixed"], "--output_dir", f"{tmp_path}/file/out"]
        ],
    }
    for expected, options in cases.items():
        arguments = [*command, "--moving", pair["moving"], "--output_dir", str(tmp_path / "out"), *options]
        result = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 1
        assert result.stderr.rstrip().splitlines()[-1].startswith(expected)
        assert "Traceback" not in result.stderr


def test_a_mirrored_heart_has_failed_and_the_exit_says_so(infer, samples, save, tmp_path):
    pair = cardiac_pair(samples)
    moving = nib.load(pair["moving"])
    values = np.asarray(moving.dataobj)
    mirrored = save("mirrored.nii.gz", values[::-1], moving.affine)
    images = {"fixed": pair["fixed"], "outputs": ["displacement"], "fail_on": "failed"}
    infer(**images, moving=pair["moving"], output_dir=str(tmp_path / "right"))
    assert load_json(tmp_path / "right" / "metrics.json")["verdict"]["verdict"] == "good"
    run = partial(infer, **images, moving=mirrored, output_dir=str(tmp_path / "wrong"))
    for _ in range(2):  # the second time the pair is done, and still has failed
        assert "--fail_on failed: 1 of 1 pairs" in message_of(run)
    verdict = load_json(tmp_path / "wrong" / "metrics.json")["verdict"]
    assert verdict["verdict"] == "failed"
    assert verdict["score"] > 0.5
    assert any("when one is flipped" in reason for reason in verdict["reasons"])
