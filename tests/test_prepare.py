"""Preparing a folder of brains: geometry, what is kept and removed, failures, and the real command."""

import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts import prepare
from scripts.prepare import Target, prepare_subject, prepare_subjects
from scripts.support.errors import InputError

from .conftest import ROOT, blobs, oblique_affine

# fixed world (x, y, z) to subject world (y + 10, -x, 2 z): nothing is symmetric
KNOWN = torch.tensor([[0, 1, 0, 10], [-1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]], dtype=torch.float64)


def small_target(shape=(4, 5, 6), spacing=3.0):
    template = MetaTensor(torch.from_numpy(blobs((8, 8, 8)).astype(np.float32))[None], affine=torch.eye(4))
    template.meta["filename_or_obj"] = "template.nii.gz"
    return Target(template, torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64)), shape)


@pytest.fixture
def subject(save):
    """``data/a`` with an image and a label map with skin (511), on a flipped grid of 1 x 2 x 3 mm."""
    affine = np.array([[-1, 0, 0, 30], [0, 2, 0, -25], [0, 0, 3, -6], [0, 0, 0, 1.0]])
    label = np.full((40, 20, 20), 2, np.uint16)
    label[:, 8:] = 41
    label[25:] = 511
    save("data/a/t1.nii.gz", blobs(label.shape) + 1, affine)
    save("data/a/seg.nii.gz", label, affine)
    return affine


def load(path):
    image = nib.load(path)
    return np.asarray(image.dataobj), image


def test_image_and_label_are_sampled_once_where_the_affine_says(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "find_affine", lambda *_: KNOWN)
    prepare_subjects(tmp_path / "data", tmp_path / "out", small_target())
    original = load(tmp_path / "data" / "a" / "t1.nii.gz")[0].astype(float) - 1
    image, nifti = load(tmp_path / "out" / "a" / "t1.nii.gz")
    label = load(tmp_path / "out" / "a" / "seg.nii.gz")[0]
    assert image.shape == label.shape == (4, 5, 6)
    assert label.dtype == np.uint8, "skin is gone"
    np.testing.assert_array_equal(nifti.affine, np.diag([3, 3, 3, 1]))
    assert nifti.header["sform_code"] == nifti.header["qform_code"] == 2
    # voxel (1, 2, 1) is at (3, 6, 3), in the subject's world at (16, -3, 6): voxel (14, 11, 4)
    assert image[1, 2, 1] == original[14, 11, 4]
    assert label[1, 2, 1] == 41
    # voxel (3, 2, 1) is at (9, 6, 3), there at (16, -9, 6): voxel (14, 8, 4)
    assert label[3, 2, 1] == 41
    # voxel (0, 0, 2) is at (0, 0, 6), there at (10, 0, 12): voxel (20, 12.5, 6), half-way between two
    assert image[0, 0, 2] == pytest.approx(original[20, 12:14, 6].mean())
    assert set(np.unique(label)) <= {0, 2, 41}


def test_padding_is_background_and_a_constant_image_is_an_error(save, tmp_path, caplog):
    image = blobs((20, 20, 20)).astype(np.int16)
    corner = np.indices(image.shape).sum(0) < 15
    for name, values in (("zero", np.where(corner, 0, image)), ("padded", np.where(corner, -2000, image))):
        save(f"data/{name}/t1.nii.gz", values.astype(np.int16))
    target = small_target((20, 20, 20), 1.0)
    zero, padded = (
        prepare_subject(tmp_path / "data" / name, target, affine=False)["t1.nii.gz"] for name in ("zero", "padded")
    )
    assert torch.equal(zero, padded)
    assert "t1.nii.gz is padded with -2000" in caplog.text
    save("data/constant/t1.nii.gz", np.full_like(image, 7))
    with pytest.raises(InputError, match="^t1: .*constant/t1.nii.gz is constant: expected an image"):
        prepare_subject(tmp_path / "data" / "constant", target, affine=False)


def test_an_image_is_cut_where_its_label_map_says_skin(subject, tmp_path):
    results = prepare_subject(tmp_path / "data" / "a", small_target((20, 20, 20), 1.0), affine=False)
    # no affine: world x = 3 is voxel 27, which is skin; x = 10 is voxel 20, which is brain
    image, label = (results[file][0] for file in ("t1.nii.gz", "seg.nii.gz"))
    assert label[3, 5, 5] == 0
    assert image[3, 5, 5] == image.min() == 0
    assert label[10, 5, 5] == 41
    assert image[10, 5, 5] > 0


def test_a_label_map_alone_and_one_on_another_grid(subject, save, tmp_path, monkeypatch):
    painted = []
    monkeypatch.setattr(prepare, "find_affine", lambda _, moving: painted.append(moving) or KNOWN)
    (tmp_path / "data" / "a" / "t1.nii.gz").unlink()
    results = prepare_subject(tmp_path / "data" / "a", small_target())
    assert list(results) == ["seg.nii.gz"]
    assert painted[0].unique().tolist() == [0, 100], "white matter is 100, and skin is background"
    save("data/a/t1.nii.gz", blobs((40, 20, 19)), subject)
    with pytest.raises(InputError, match=r"seg: .*seg.nii.gz has shape \(40, 20, 20\): expected \(40, 20, 19\)"):
        prepare_subject(tmp_path / "data" / "a", small_target())


def test_one_failure_does_not_stop_the_others_and_what_is_done_is_skipped(subject, save, tmp_path, caplog):
    (tmp_path / "data" / "b").mkdir()
    (tmp_path / "data" / "b" / "t1.nii.gz").write_text("no NIfTI")
    save("data/c/t1.nii.gz", blobs((30, 30, 30)))
    caplog.set_level("INFO", "scripts")
    out = tmp_path / "out"

    def run():
        with pytest.raises(InputError, match=r"^1 of 3 subjects failed: b\.$"):
            prepare_subjects(tmp_path / "data", out, small_target(), affine=False)

    run()
    assert "b failed: t1: " in caplog.text
    assert "cannot be read as NIfTI" in caplog.text
    assert "c/t1.nii.gz does not look skull-stripped" in caplog.text
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    assert files == ["a", "a/seg.nii.gz", "a/t1.nii.gz", "c", "c/t1.nii.gz"]
    stamps = [(out / file).stat().st_mtime_ns for file in files]
    run()
    assert "prepared 0, skipped 2 finished, failed 1" in caplog.text
    assert [(out / file).stat().st_mtime_ns for file in files] == stamps


def test_ids_below_zero_and_above_a_byte_are_kept(subject, tmp_path):
    path = tmp_path / "data" / "a" / "seg.nii.gz"
    image = nib.load(path)
    ids = np.where(np.asarray(image.dataobj) == 41, 312782574, -1)
    nib.save(nib.Nifti1Image(ids.astype(np.int32), image.affine), path)
    prepare_subjects(tmp_path / "data", tmp_path / "out", small_target(), affine=False)
    found = np.unique(nib.load(tmp_path / "out" / "a" / "seg.nii.gz").dataobj)
    assert {-1, 312782574} <= set(found.tolist()) <= {-1, 0, 312782574}


def test_results_of_other_options_or_files_are_no_longer_skipped(subject, tmp_path, caplog):
    caplog.set_level("INFO", "scripts")
    data, out = tmp_path / "data", tmp_path / "out"
    prepare_subjects(data, out, small_target(), affine=False)
    prepare_subjects(data, out, small_target(), affine=False)
    assert "prepared 0, skipped 1 finished, failed 0" in caplog.text

    def fails(message, **options):
        caplog.clear()
        with pytest.raises(InputError, match=r"^1 of 1 subjects failed: a\.$"):
            prepare_subjects(data, out, small_target(), **{"affine": False, **options})
        assert message in caplog.text

    fails("t1.nii.gz was prepared from other files or with other options", bias_correction=True)
    prepare_subjects(data, out, small_target(), affine=False, bias_correction=True, overwrite=True)
    fails("t1.nii.gz was prepared from other files or with other options")
    shutil.copy(data / "a" / "t1.nii.gz", out / "a" / "t1.nii.gz")
    before = (out / "a" / "t1.nii.gz").read_bytes()
    fails("t1.nii.gz was not prepared: expected another --output_dir, or --overwrite")
    assert (out / "a" / "t1.nii.gz").read_bytes() == before


def test_bad_folders_templates_and_grids(tmp_path, save, monkeypatch):
    with pytest.raises(InputError, match=r"dataset_dir: .* has no subjects: expected .*/<subject>/t1.nii.gz"):
        prepare_subjects(tmp_path, tmp_path / "out", small_target())
    with pytest.raises(InputError, match=r"template: none.nii.gz does not exist"):
        Target.of("none.nii.gz", 2, (96, 112, 96))
    with pytest.raises(InputError, match=r"--spacing 0 and --spatial_size \(1, 1, 1\): expected numbers above 0"):
        Target.of("none.nii.gz", 0, (1, 1, 1))
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(InputError, match=r"needs nilearn, which is not installed: pip install nilearn, or --template"):
        Target.of("mni152", 2, (96, 112, 96))


def test_the_grid_lies_around_the_brain_of_a_template_file(save):
    template = np.zeros((20, 20, 20), np.uint8)
    template[2:9, 4:7, 10:15] = 1
    # voxels 2..8, 4..6 and 10..14: their middle (5, 5, 12) is at (5 + 7, 10 - 3, 36)
    path = save("t.nii.gz", template, np.array([[1, 0, 0, 7], [0, 2, 0, -3], [0, 0, 3, 0], [0, 0, 0, 1.0]]))
    target = Target.of(path, 2.0, (5, 6, 7))
    assert target.affine[:3, 3].tolist() == [12 - 2 * 2, 7 - 2 * 2.5, 36 - 2 * 3]


def test_the_grid_of_mni152_is_that_of_the_shipped_brains(samples):
    pytest.importorskip("nilearn")
    target = Target.of("mni152", 2.0, (96, 112, 96))
    shipped = nib.load(samples / "brain_synthetic" / "synthetic_19" / "t1.nii.gz")
    assert target.shape == shipped.shape
    np.testing.assert_array_equal(target.affine, shipped.affine)
    template = target.resample(target.template, torch.eye(4, dtype=torch.float64))[0] > 0
    brain = shipped.get_fdata() > 0
    assert 2 * (template.numpy() & brain).sum() / (template.sum() + brain.sum()) > 0.9


@pytest.mark.slow
def test_the_real_command_aligns_a_turned_brain_and_its_label_map(samples, save, tmp_path):
    """One shipped brain, turned and on its side in space, comes to lie on the other."""
    folder = samples / "brain_synthetic"
    turn = oblique_affine((1.05, 0.95, 1.0), (40, -30, 25), (20, -15), (1, 1, 1))
    for file in ("t1.nii.gz", "seg.nii.gz"):
        image = nib.load(folder / "synthetic_20" / file)
        for subject in ("both", "label")[: 1 if file == "t1.nii.gz" else 2]:
            save(f"data/{subject}/{file}", np.asarray(image.dataobj), turn @ image.affine)
    command = [sys.executable, "-m", "scripts.prepare", "--dataset_dir", str(tmp_path / "data")]
    command += ["--template", str(folder / "synthetic_19" / "t1.nii.gz"), "--spatial_size", "96", "112", "96"]
    result = subprocess.run([*command, "--output_dir", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "1/2 both: overlap with the template 0.9" in result.stderr
    assert "2/2 label: overlap with the template 0.8" in result.stderr, "its CSF is not labelled"
    expected, reference = load(folder / "synthetic_19" / "seg.nii.gz")
    for subject in ("both", "label"):
        found, nifti = load(tmp_path / "out" / subject / "seg.nii.gz")
        # the grid is centred on the template's brain; carry its voxels to those of the template
        index = np.stack(np.meshgrid(*map(np.arange, found.shape), indexing="ij")).reshape(3, -1)
        world = nifti.affine[:3, :3] @ index + nifti.affine[:3, 3:]
        back = np.linalg.solve(reference.affine[:3, :3], world - reference.affine[:3, 3:]).round().astype(int)
        inside = ((back >= 0) & (back < np.array(expected.shape)[:, None])).all(0)
        found, truth = found.reshape(-1)[inside], expected[tuple(back[:, inside])]
        dice = [2 * ((found == i) & (truth == i)).sum() / ((found == i).sum() + (truth == i).sum()) for i in (2, 3, 10)]
        assert np.mean(dice) > 0.55, dice

    (tmp_path / "data" / "bad").mkdir()
    (tmp_path / "data" / "bad" / "t1.nii.gz").write_text("")
    result = subprocess.run([*command, "--output_dir", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.rstrip().splitlines()[-1] == "error: 1 of 3 subjects failed: bad."
    assert "Traceback" not in result.stderr
