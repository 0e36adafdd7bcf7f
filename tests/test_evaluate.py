"""``evaluate.yaml`` on real files: its tables, displacements of other tools, processes, and bad input."""

import csv
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monai.bundle import ConfigParser, ConfigWorkflow

from scripts.results.names import USUAL

from .conftest import ROOT, blobs, load_json, message_of, oblique_affine

CONFIGS = ROOT / "configs"
FILES = ["dice.png", "metrics.csv", "regularity.png", "summary.json"]


@pytest.fixture
def evaluate(bundle, tmp_path):
    """Run ``evaluate.yaml`` with overlays and return the rows of its table by pair."""

    def call(*overlays, **options):
        options = {"output_dir": str(tmp_path / "evaluate"), **options}
        bundle("evaluate", *overlays, **options)
        return read_table(options["output_dir"])

    return call


def read_table(folder):
    with open(f"{folder}/metrics.csv") as file:
        rows = {row.pop("pair"): row for row in csv.DictReader(file)}
    return {name: {key: number(value) for key, value in row.items()} for name, row in rows.items()}


def number(text):
    try:
        return float(text)
    except ValueError:
        return text


def one_sample(samples, tmp_path, name="SC-N-10"):
    """A datalist of one cardiac sample, with absolute paths."""
    path = samples / "sunnybrook" / name / name
    pair = {"name": name, "fixed": f"{path}_ED.nii.gz", "moving": f"{path}_ES.nii.gz"}
    pair |= {"label_fixed": f"{path}_ED_gt.nii.gz", "label_moving": f"{path}_ES_gt.nii.gz"}
    return datalist(tmp_path, pair), pair


def datalist(tmp_path, *pairs):
    path = tmp_path / f"list_{len(list(tmp_path.iterdir()))}.json"
    path.write_text(json.dumps(pairs))
    return str(path)


def test_a_data_set_gives_table_summary_and_plots(evaluate, samples, tmp_path, capsys):
    rows = evaluate(dataset_dir=str(samples / "sunnybrook"), subset="all", num_pairs=1)
    assert sorted(path.name for path in (tmp_path / "evaluate").iterdir()) == FILES
    (row,) = rows.values()
    assert row["dice.after.LV"] == row["dice.after.mean"] > row["dice.before.LV"] + 0.1
    for measure in ("hausdorff_mm", "hausdorff95_mm", "surface_distance_mm"):
        assert 0 < row[f"{measure}.after.LV"] < row[f"{measure}.before.LV"]
    assert row["hausdorff_mm.after.LV"] > row["hausdorff95_mm.after.LV"] > row["surface_distance_mm.after.LV"]
    assert row["rmse.after"] < row["rmse.before"]
    summary = load_json(tmp_path / "evaluate" / "summary.json")
    assert summary["layout"] == "sunnybrook"
    assert summary["subset"] == "all"
    assert summary["pairs"] == 1
    assert summary["measures"]["dice.after.LV"]["mean"] == pytest.approx(row["dice.after.LV"], rel=1e-5)
    assert "HD95 mm before" in capsys.readouterr().out


def test_written_displacements_measured_again_give_the_same_numbers(evaluate, samples, tmp_path):
    """Each file is read back in millimetres and float32, which moves sampling points by some 1e-5 voxels."""
    pairs, _ = one_sample(samples, tmp_path)
    folder = tmp_path / "network"
    (first,) = evaluate(datalist=pairs, save_results="true", output_dir=str(folder)).values()
    assert sorted(path.name for path in (folder / "SC-N-10").iterdir()) == sorted({*USUAL} - {"alignment.mat"})
    # without the network, and without its weights
    options = {"displacements": str(folder), "true_displacements": str(folder), "weights": "none.pt"}
    (second,) = evaluate(datalist=pairs, **options).values()
    assert load_json(tmp_path / "evaluate" / "summary.json")["weights"] is None
    assert first.pop("score") < 0.1
    assert second.pop("score") == "", "of a displacement that was given, only warnings are judged"
    assert second.pop("verdict") == first.pop("verdict") == "good"
    assert second.pop("reasons") == first.pop("reasons") == ""
    for column in set(first) & set(second):
        assert second[column] == pytest.approx(first[column], rel=1e-3, abs=1e-4), column
    assert second["end_point_error.whole_grid.mean_mm"] < 1e-3
    assert {column.split(".")[0] for column in set(first) ^ set(second)} == {"end_point_error", "inverse"}


def test_a_known_shift_of_simpleitk_on_a_flipped_anisotropic_grid(evaluate, save, tmp_path):
    """Moving is fixed, carried 3 x 2 x -1 voxels along: the field that undoes this gives Dice 1, others less."""
    affine = oblique_affine((1.0, 1.5, 2.0), (20, -15, 10), (25, -15), (-1, 1, 1))
    shift = (3, 2, -1)
    image, label = (np.zeros((32, 26, 20), dtype) for dtype in (np.uint16, np.uint8))
    image[8:24, 6:20, 5:15] = 100 + blobs((16, 14, 10))
    label[10:20, 8:16, 7:13] = 1
    label[12:18, 10:14, 8:12] = 2
    moving, label_moving = (np.roll(array, shift, (0, 1, 2)) for array in (image, label))
    pair = {"name": "shift", "fixed": save("f.nii.gz", image, affine), "moving": save("m.nii.gz", moving, affine)}
    pair |= {"label_fixed": save("lf.nii.gz", label, affine), "label_moving": save("lm.nii.gz", label_moving, affine)}

    fixed = sitk.ReadImage(pair["fixed"])
    origin, moved = (np.array(fixed.TransformContinuousIndexToPhysicalPoint(p)) for p in ((0.0, 0.0, 0.0), shift))
    vector = moved - origin
    for name, factor in (("right", 1), ("wrong", 0.5)):
        # on a coarser grid that is larger than the image
        field = sitk.GetImageFromArray(np.broadcast_to(factor * vector, (10, 10, 10, 3)), isVector=True)
        field.SetDirection(fixed.GetDirection())
        field.SetSpacing((4.0, 5.0, 6.0))
        field.SetOrigin(fixed.TransformContinuousIndexToPhysicalPoint((-1.0, -1.0, -1.0)))
        (tmp_path / name).mkdir()
        sitk.WriteImage(field, str(tmp_path / name / "shift.nii.gz"))

    options = {"datalist": datalist(tmp_path, pair), "true_displacements": str(tmp_path / "right")}
    (row,) = evaluate("hippocampus", **options, displacements=str(tmp_path / "right")).values()
    assert row["dice.after.1"] == row["dice.after.2"] == 1
    # of 6 x 4 x 4 voxels, shifted by 3, 2 and -1, 3 x 2 x 3 overlap
    assert row["dice.before.2"] == pytest.approx(3 * 2 * 3 / (6 * 4 * 4))
    assert row["hausdorff_mm.after.1"] == row["surface_distance_mm.after.2"] == 0
    assert row["hausdorff_mm.before.2"] == pytest.approx(np.linalg.norm(np.array(shift) * (1, 1.5, 2)), rel=1e-5)
    assert row["end_point_error.whole_grid.mean_mm"] == pytest.approx(0, abs=1e-4)
    assert row["folding.whole_grid.folding_percent"] == 0
    (row,) = evaluate("hippocampus", **options, displacements=str(tmp_path / "wrong")).values()
    assert row["dice.after.2"] < 1
    assert row["end_point_error.whole_grid.mean_mm"] == pytest.approx(np.linalg.norm(vector) / 2, rel=1e-4)
    assert row["end_point_error.foreground.mean_voxel"] == pytest.approx(np.linalg.norm(shift) / 2, rel=1e-4)


def test_a_single_slice_and_its_displacement_of_two_components(evaluate, infer, samples, save, tmp_path):
    _, pair = one_sample(samples, tmp_path)
    affine = np.diag([-1.4, 1.4, 1.0, 1.0])
    flat = {
        key: save(f"{key}.nii.gz", np.asarray(nib.load(pair[key]).dataobj)[..., 3], affine)
        for key in pair
        if key != "name"
    }
    infer(**flat, output_dir=str(tmp_path / "out" / "flat"))
    assert nib.load(tmp_path / "out" / "flat" / "displacement.nii.gz").shape[2:] == (1, 1, 2)
    metrics = load_json(tmp_path / "out" / "flat" / "metrics.json")
    pairs = datalist(tmp_path, {"name": "flat", **flat})
    (row,) = evaluate(datalist=pairs, displacements=str(tmp_path / "out")).values()
    assert row["dice.after.1"] == pytest.approx(metrics["dice"]["after"]["1"], abs=1e-4)
    folding = metrics["folding"]["whole_grid"]["std_log_jacobian"]
    assert row["folding.whole_grid.std_log_jacobian"] == pytest.approx(folding, rel=1e-3)


def test_chosen_slices(evaluate, samples, tmp_path):
    pairs, _ = one_sample(samples, tmp_path)
    (row,) = evaluate(datalist=pairs, slices=[0.25, 0.5, 0.75]).values()
    assert row["dice.after.1"] > row["dice.before.1"]
    assert load_json(tmp_path / "evaluate" / "summary.json")["slices"] == [0.25, 0.5, 0.75]


def test_bad_input_ends_in_one_line_and_without_files(evaluate, samples, tmp_path):
    pairs, pair = one_sample(samples, tmp_path)
    folder = str(samples / "sunnybrook")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.json").write_text("[]")
    cases = {
        "unknown subset 'tests'": {"dataset_dir": folder, "subset": "tests"},
        "unknown layout 'acdcc'": {"dataset_dir": folder, "layout": "acdcc"},
        "none is not a folder": {"dataset_dir": str(tmp_path / "none")},
        "--dataset_dir is missing": {},
        "empty": {"dataset_dir": str(tmp_path / "empty")},
        "is not a list of pairs": {"datalist": str(tmp_path / "empty.json")},
        "no field for the pair 'SC-N-10'": {"datalist": pairs, "displacements": str(tmp_path)},
        "slices: found [2]": {"datalist": pairs, "slices": [2]},
        "has shape": {"datalist": datalist(tmp_path, {**pair, "displacement": pair["label_fixed"]})},
        "weights: none.pt does not exist": {"datalist": pairs, "weights": "none.pt"},
        "--save_results is 'maybe'": {"datalist": pairs, "save_results": "maybe"},
    }
    for expected, options in cases.items():
        assert expected in message_of(lambda options=options: evaluate(**options))
        assert not list((tmp_path / "evaluate").rglob("*.*")), expected


def test_a_pair_that_fails_is_named_and_the_others_are_measured(evaluate, samples, tmp_path):
    _, good = one_sample(samples, tmp_path)
    pairs = datalist(tmp_path, good, {**good, "name": "bad", "moving": str(tmp_path / "none.nii.gz")})
    assert message_of(lambda: evaluate(datalist=pairs)) == "1 of 2 pairs failed: bad."
    assert list(read_table(tmp_path / "evaluate")) == ["SC-N-10"]
    assert "does not exist" in load_json(tmp_path / "evaluate" / "summary.json")["failed"]["bad"]


@pytest.mark.parametrize("overlays", [[], ["hippocampus"], ["brain"]])
def test_it_has_every_property_from_any_folder(overlays, tmp_path, monkeypatch, samples):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.yaml") for name in ("evaluate", *overlays)],
        workflow_type="inference",
        logging_file=False,
        dataset_dir=str(samples / "sunnybrook"),
        subset="all",
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert len(workflow.dataset) == 3
    assert not list(tmp_path.iterdir()), "nothing may be written before the run"


def test_the_model_is_that_of_inference():
    inference, evaluate = (ConfigParser.load_config_file(str(CONFIGS / f"{n}.yaml")) for n in ("inference", "evaluate"))
    model = ["bundle_root", "weights", "spatial_dims", "spacing", "spatial_size", "alignment", "device", "amp"]
    for key in (*model, "task", "intensity_range", "network_def", "inferer", "network_spacing", "fine_steps"):
        assert evaluate[key] == inference[key]


def torchrun(config, tmp_path, **options):
    files = [str(CONFIGS / f"{name}.yaml") for name in (config, "multi_gpu_evaluate")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str(files)]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_write_the_table_of_one(samples, tmp_path):
    options = {"dataset_dir": samples / "sunnybrook", "subset": "all"}
    result = torchrun("evaluate", tmp_path, **options, output_dir=tmp_path / "two")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Dice before") == 1
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / "evaluate.yaml")]
    command += ["--dataset_dir", str(options["dataset_dir"]), "--subset", "all", "--output_dir", str(tmp_path / "one")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    one, two = ((tmp_path / name / "metrics.csv").read_text() for name in ("one", "two"))
    assert one == two
    assert len(one.splitlines()) == 4


@pytest.mark.slow
def test_two_processes_register_each_pair_of_a_list_once_and_report_what_fails(samples, tmp_path):
    _, good = one_sample(samples, tmp_path)
    bad = {"name": "bad", "fixed": good["fixed"], "moving": str(tmp_path / "none.nii.gz")}
    names = [{**good, "name": name} for name in ("a", "b", "c")]
    result = torchrun("inference", tmp_path, datalist=datalist(tmp_path, bad, *names), output_dir=tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.count("error: 1 of 4 pairs failed: bad.") == 2
    assert "registered 3, skipped 0 finished, failed 1" in result.stdout + result.stderr
    for name in ("a", "b", "c"):
        assert sorted(path.name for path in (tmp_path / "out" / name).iterdir()) == sorted({*USUAL} - {"alignment.mat"})
    result = torchrun("inference", tmp_path, datalist=datalist(tmp_path, *names), output_dir=tmp_path / "out")
    assert result.returncode == 0
    assert "registered 0, skipped 3 finished, failed 0" in result.stdout + result.stderr
