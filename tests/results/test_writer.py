"""Files written together, skipped when done, and never replaced by surprise."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from scipy.io import loadmat

from scripts.results.names import USUAL, file_names
from scripts.results.writer import RegistrationWriter, write_results
from scripts.support.errors import InputError
from scripts.verdict import Verdict

from ..conftest import blobs, load_json

ALIGNMENT = torch.tensor([[1.0, 0.1, 0, 2], [0, 1, 0, -3], [0, 0, 1.2, 5], [0, 0, 0, 1]], dtype=torch.float64)


@pytest.fixture
def pair(save, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    return {"name": "case", "fixed": save("f.nii", blobs((8, 7, 6))), "moving": save("m.nii", blobs((8, 7, 6), 1))}


def result(pair, with_label=True, **changes):
    image = MetaTensor(torch.from_numpy(blobs((8, 7, 6)).astype(np.float32))[None])
    field = torch.zeros(3, 8, 7, 6)
    weights = Path(pair["fixed"]).with_name("model.pt")
    values = {
        **{
            "inputs": pair,
            "weights": weights,
            "seconds": {"read": 1.0},
            "metrics": {"ncc": float("nan")},
            "settings": None,
        },
        "warnings": ["fixed: f.nii is odd."],
        **dict.fromkeys(("fixed", "warped"), image),
        "resampled_plane": image.as_tensor()[0].select,
        **dict.fromkeys(("ddf", "inverse"), field),
        "label_fixed": None,
        "ranges": {"fixed": (0.0, 1.0), "moving": (0.0, 1.0)},
        "jacobian": torch.ones(1, 8, 7, 6),
        "alignment": ALIGNMENT,
        "verdict": Verdict("doubtful", ("fixed: f.nii is odd.",), 0.05),
        "evidence": {"agreement": 0.8},
        "brain_masks": {"brain_mask_fixed": image > 0, "brain_mask_moving": image > 1},
        "label_warped": torch.full((1, 8, 7, 6), 70000.0) if with_label else None,
    }
    return SimpleNamespace(**{**values, **changes})


def writer(tmp_path, **options):
    return RegistrationWriter(tmp_path / "out", tmp_path / "model.pt", **options)


def test_writes_all_files_and_nothing_else(pair, tmp_path):
    writer(tmp_path).write(result(pair))
    folder = tmp_path / "out" / "case"
    assert sorted(p.name for p in folder.iterdir()) == sorted(USUAL)
    metrics = load_json(folder / "metrics.json")
    assert metrics["ncc"] is None
    assert metrics["warnings"] == ["fixed: f.nii is odd."]
    assert metrics["verdict"] == {
        "verdict": "doubtful",
        "reasons": ["fixed: f.nii is odd."],
        "score": 0.05,
        "evidence": {"agreement": 0.8},
    }
    assert set(metrics["sha256"]) == {"weights", "fixed", "moving"}
    assert nib.load(folder / "label_warped.nii.gz").get_fdata().max() == 70000


def test_the_alignment_is_a_file_that_itk_reads(pair, tmp_path):
    """By hand: the point (10, 20, 30) in RAS goes to (14, 17, 41)."""
    writer(tmp_path).write(result(pair))
    folder = tmp_path / "out" / "case"
    content = loadmat(folder / "alignment.mat")
    assert content["AffineTransform_double_3_3"].shape == (12, 1)
    assert content["fixed"].ravel().tolist() == [0, 0, 0]
    transform = sitk.ReadTransform(str(folder / "alignment.mat"))
    assert transform.TransformPoint((-10.0, -20.0, 30.0)) == pytest.approx((-14, -17, 41))
    by_another_tool = {**pair, "displacement": pair["fixed"]}
    for number, changes in enumerate(({"alignment": np.eye(4)}, {"inputs": by_another_tool})):
        folder = tmp_path / str(number)
        write_results(result(pair, **changes), folder, outputs=("alignment.mat", "metrics.json"))
        assert [path.name for path in folder.iterdir()] == ["metrics.json"]


def test_is_done_only_for_the_same_files_and_weights(pair, tmp_path, save):
    assert not writer(tmp_path).is_done(pair)
    writer(tmp_path).write(result(pair))
    assert writer(tmp_path).is_done(pair)
    assert not writer(tmp_path, overwrite=True).is_done(pair)
    other = {**pair, "moving": save("other.nii", blobs((8, 7, 6), 2))}
    with pytest.raises(InputError, match=r"out/case holds the result of other files or weights: .*--overwrite true"):
        writer(tmp_path).is_done(other)
    (tmp_path / "model.pt").write_bytes(b"other weights")
    with pytest.raises(InputError, match="other files or weights"):
        writer(tmp_path).is_done(pair)


def test_a_failure_while_writing_leaves_the_old_result_whole(pair, tmp_path):
    writer(tmp_path).write(result(pair))
    folder = tmp_path / "out" / "case"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises((RuntimeError, ValueError)):
        writer(tmp_path).write(result(pair, jacobian=torch.ones(3)))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_overwriting_removes_what_is_not_written_again(pair, tmp_path):
    writer(tmp_path).write(result(pair))
    writer(tmp_path).write(result(pair, with_label=False))
    assert not (tmp_path / "out" / "case" / "label_warped.nii.gz").exists()


def test_an_output_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output_dir: .*file/out cannot be written to \(Not a directory\)"):
        RegistrationWriter(tmp_path / "file" / "out", "model.pt").prepare()


def test_results_in_a_folder_of_others_only_when_they_may_be_replaced(pair, tmp_path):
    write_results(result(pair), tmp_path / "own")
    with pytest.raises(InputError, match=r"own holds the result of a registration: expected an empty folder"):
        write_results(result(pair), tmp_path / "own")
    write_results(result(pair, with_label=False), tmp_path / "own", overwrite=True)
    assert not (tmp_path / "own" / "label_warped.nii.gz").exists()


def test_images_in_memory_have_no_checksum(pair, tmp_path):
    given = {"fixed": nib.load(pair["fixed"]), "moving": MetaTensor(torch.ones(1, 8, 7, 6))}
    write_results(result(pair, inputs=given), tmp_path / "out")
    metrics = load_json(tmp_path / "out" / "metrics.json")
    assert metrics["files"] == {}
    assert set(metrics["sha256"]) == {"weights"}


def test_other_options_are_another_result(pair, tmp_path):
    writer(tmp_path).write(result(pair, settings="one"))
    assert writer(tmp_path).is_done(pair, "one")
    with pytest.raises(InputError, match=r"out/case holds the result of other options: .*--overwrite true"):
        writer(tmp_path).is_done(pair, "two")
    assert not writer(tmp_path, again=True).is_done(pair, "two")


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"sha256": {}}', "[" * 100_000, "\0"])
def test_files_that_are_no_results_are_left_where_they_are(pair, tmp_path, content):
    folder = tmp_path / "out" / "case"
    folder.mkdir(parents=True)
    (folder / "label_warped.nii.gz").write_text("mine")
    if content is not None:
        (folder / "metrics.json").write_text(content)
    for again in (False, True):
        with pytest.raises(InputError, match=r"out/case holds label_warped.nii.gz, which is no result of a registr"):
            writer(tmp_path, again=again).is_done(pair)
    assert (folder / "label_warped.nii.gz").read_text() == "mine"
    assert not writer(tmp_path, overwrite=True).is_done(pair)


def test_an_input_in_the_place_of_a_result_is_never_overwritten(pair, tmp_path, save):
    kept = {**pair, "fixed": save("out/case/moving_warped.nii.gz", blobs((8, 7, 6)))}
    (tmp_path / "other").symlink_to(tmp_path / "out")
    for output_dir in ("out", "other", "out/../out"):
        with pytest.raises(InputError, match=r"fixed: .*moving_warped.nii.gz would be overwritten by a result"):
            RegistrationWriter(tmp_path / output_dir, tmp_path / "model.pt", overwrite=True).prepare([pair, kept])
    (tmp_path / "link.nii.gz").symlink_to(kept["fixed"])
    with pytest.raises(InputError, match=r"moving: .*link.nii.gz would be overwritten"):
        writer(tmp_path, overwrite=True).prepare([{**pair, "moving": str(tmp_path / "link.nii.gz")}])
    writer(tmp_path, overwrite=True).prepare([{**kept, "name": "elsewhere"}])


def test_what_a_killed_run_left_is_removed(pair, tmp_path):
    writer(tmp_path).write(result(pair))
    folder = tmp_path / "out" / "case"
    (folder / ".partial_x").mkdir()  # killed while it wrote again: the result is whole
    (folder / ".partial_x" / "displacement.nii.gz").write_text("half")
    (folder / ".partial_y").write_text("")
    assert writer(tmp_path).is_done(pair)
    assert sorted(p.name for p in folder.iterdir()) == sorted(USUAL)
    (folder / ".partial_x").mkdir()  # killed while the files moved to their places: the result is in parts
    (folder / "metrics.json").unlink()
    assert not writer(tmp_path).is_done(pair)
    assert not list(folder.iterdir())


def test_a_full_disk_is_told_in_one_line(pair, tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Header, "write_to", full)
    with pytest.raises(InputError, match=r"out/case cannot be written to \(No space left on device\)"):
        writer(tmp_path).write(result(pair))
    assert not list((tmp_path / "out" / "case").iterdir())


def test_only_the_outputs_that_are_asked_for_are_computed_and_written(pair, tmp_path):
    wanted = {"outputs": ["displacement", "moving_warped"]}
    bare = result(pair)
    for name in ("jacobian", "inverse", "resampled_plane"):
        delattr(bare, name)
    writer(tmp_path, **wanted).write(bare)
    folder = tmp_path / "out" / "case"
    assert sorted(p.name for p in folder.iterdir()) == ["displacement.nii.gz", "metrics.json", "moving_warped.nii.gz"]
    assert writer(tmp_path, **wanted).is_done(pair)
    assert writer(tmp_path, outputs="displacement").is_done(pair)
    with pytest.raises(InputError, match="holds the result of other options"):
        writer(tmp_path).is_done(pair)
    with pytest.raises(InputError, match=r"--outputs has 'warped': expected some of moving_warped, label_warped"):
        writer(tmp_path, outputs=["warped"])


def test_masks_of_brains_are_written_on_request(pair, tmp_path):
    writer(tmp_path, outputs=["brain_mask_fixed", "brain_mask_moving"]).write(result(pair))
    for role in ("fixed", "moving"):
        mask = nib.load(tmp_path / "out" / "case" / f"brain_mask_{role}.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        assert np.array_equal(mask.dataobj, blobs((8, 7, 6)) > (0 if role == "fixed" else 1))
        assert np.array_equal(mask.affine, nib.load(pair[role]).affine)


def test_names_of_bids_are_done_replaced_and_kept_like_others(pair, tmp_path, save):
    bids, plain = writer(tmp_path, names="bids"), writer(tmp_path)
    names = {file_names(pair, "bids")[file] for file in USUAL}
    assert "from-m_to-f_mode-image_xfm.nii.gz" in names
    folder = tmp_path / "out" / "case"
    bids.write(result(pair))
    assert {path.name for path in folder.iterdir()} == names
    assert bids.is_done(pair)
    for other in (plain, writer(tmp_path, names="bids", overwrite=True)):
        other.write(result(pair))  # what had other names is gone
        assert {path.name for path in folder.iterdir()} == ({*USUAL} if other is plain else names)
    with pytest.raises(InputError, match=r"out/case holds the result of other options: .*--overwrite true"):
        plain.is_done(pair)
    assert writer(tmp_path, names="bids", outputs=["displacement"]).is_done(pair)
    (folder / "metrics.json").unlink()
    with pytest.raises(InputError, match="which is no result of a registration"):
        bids.is_done(pair)
    (folder / ".partial_y").write_text("")  # a killed run
    assert not bids.is_done(pair)
    assert not list(folder.iterdir())
    kept = {**pair, "fixed": save("out/case/space-f_desc-warped_m.nii.gz", blobs((8, 7, 6))), "moving": "m.nii"}
    with pytest.raises(InputError, match="would be overwritten by a result"):
        bids.prepare([{**kept, "fixed": pair["fixed"], "label_fixed": kept["fixed"], "moving": pair["moving"]}])
