"""The verdict on a tracked cine: what is measured of known motions and images, and what is concluded."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts import Registration
from scripts.collect import main
from scripts.heart import read_cine, track
from scripts.heart.results import displacement_image
from scripts.heart.verdict import LIMITS, judge_cine

from ..conftest import blobs, message_of
from .test_heart import AFFINE, COUNT, NAMES, SHAPE, contraction, heart_label, motion

GOOD = {"agreement": 0.8, "slice_agreement": 0.7, "label_fit": 0.6, "travel": 1.1, "ejection_fraction": 60.0}


def test_the_worst_measure_decides():
    assert judge_cine(GOOD) == judge_cine({})
    assert (judge_cine(GOOD).verdict, judge_cine(GOOD).reasons) == ("good", ())
    doubtful = judge_cine({**GOOD, "ejection_fraction": 3.2})
    assert (doubtful.verdict, doubtful.reasons) == ("doubtful", ("an ejection fraction of 3 % is not plausible",))
    failed = judge_cine({**GOOD, "label_fit": 0.1, "travel": 1.5}, ["cine: no orientation"])
    assert failed.verdict == "failed"
    assert [reason.partition(":")[0] for reason in failed.reasons] == [
        "the label separates cavity and wall worse than usual",
        "the heart moves to and fro",
        "cine",
    ]
    assert judge_cine(GOOD, ["said"]).verdict == "doubtful"
    assert judge_cine({"agreement": math.nan}).verdict == "failed"


def test_a_limit_has_two_levels_on_each_side():
    assert [LIMITS["agreement"].level(value) for value in (0.39, 0.41, 0.54, 0.56)] == [2, 1, 1, 0]
    assert [LIMITS["travel"].level(value) for value in (1.3, 1.4, 1.7)] == [0, 1, 2]
    assert [LIMITS["circumferential"].level(value) for value in (-61, -20, 1)] == [1, 0, 1]


def found(save, fields, frames=None):
    """The evidence for a cine that shows the same image in each frame, with this motion."""
    still = np.repeat(blobs(SHAPE)[..., None], len(fields), -1) if frames is None else frames
    files = save("cine.nii.gz", still, AFFINE), save("label.nii.gz", heart_label(), AFFINE)
    return track(read_cine(*files, 0, NAMES), lambda cine, reference: fields).evidence


def test_the_motion_of_a_shrinking_heart(save):
    evidence = found(save, motion(shrink=0.2))
    assert evidence["travel"] == pytest.approx(1, abs=1e-4)
    assert evidence["closure"] == pytest.approx(contraction()[-1], abs=1e-4)
    assert evidence["folding_percent"] == 0
    assert evidence["ejection_fraction"] == pytest.approx(36, abs=0.01)
    assert evidence["circumferential"] == pytest.approx(-20, abs=0.01)
    assert evidence["radial"] == pytest.approx(-20, abs=0.01)
    volumes = (1 - 0.2 * contraction()) ** 2
    assert evidence["volume_jump"] == pytest.approx((1 - volumes[1:] / volumes[:-1]).max(), abs=1e-4)


def test_frames_in_a_wrong_order_move_to_and_fro(save):
    fields = motion(shrink=0.2)
    order = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    path = np.abs(np.diff(contraction()[[*order, 0]])).sum()
    assert found(save, fields[order])["travel"] == pytest.approx(path / 2, abs=1e-3)


def test_a_frame_of_another_image_and_a_flat_slice_are_seen(save):
    fields = motion()
    frames = np.repeat(blobs(SHAPE)[..., None], COUNT, -1)
    evidence = found(save, fields, frames)
    assert evidence["agreement"] == pytest.approx(1, abs=1e-3)
    assert "travel" not in evidence  # nothing moves
    frames[..., 3] = blobs(SHAPE, 5)
    assert found(save, fields, frames)["agreement"] < 0.4
    frames[..., 3] = frames[..., 2]
    frames[..., :3, 3] = 7  # half of the slices
    evidence = found(save, fields, frames)
    assert evidence["slice_agreement"] == pytest.approx(0, abs=1e-3)


def test_a_label_that_fits_the_image(save):
    label = heart_label()
    frames = np.repeat(np.where(label == 3, 100.0, 20.0)[..., None], COUNT, -1)
    assert found(save, motion(), frames.astype(np.float32))["label_fit"] == pytest.approx(1)
    frames[:, :, :3] = np.random.default_rng(0).normal(60, 20, frames[:, :, :3].shape)
    assert found(save, motion(), frames.astype(np.float32))["label_fit"] < LIMITS["label_fit"].failed_low


def test_a_fold_is_counted(save):
    fields = motion()
    fields[5, 0, 20, 20, 3] = -3  # the next voxel lies before it, and it lies before the one behind it
    assert 0 < found(save, fields)["folding_percent"] < 0.1
    assert torch.equal(fields[4], motion()[4])


def test_the_verdict_of_a_tracking_knows_its_warnings(save):
    frames = np.stack([blobs((48, 48, 2), seed) for seed in range(3)], -1)
    tracked = Registration.load("cardiac").track(save("cine.nii.gz", frames, np.diag([1.5, 1.5, 8, 1])))
    assert tracked.verdict.verdict == "failed"  # unrelated images
    assert len(tracked.warnings) == 1
    assert "without a label, end-diastole is" in tracked.verdict.reasons[-1]


@pytest.mark.slow
def test_the_command_says_verdicts_and_ends_with_them(infer, samples, tmp_path, capsys, caplog):
    """One cine of the samples as it is, one with a frame of noise."""
    files = [samples / "cine" / f"{name}.nii.gz" for name in ("cine", "label")]
    cine = nib.load(files[0])
    frames = np.asarray(cine.dataobj).copy()
    frames[..., 4] = np.random.default_rng(0).permuted(frames[..., 4])
    nib.save(nib.Nifti1Image(frames, cine.affine, cine.header), tmp_path / "noisy.nii.gz")
    entries = [
        {"name": name, "cine": str(file), "label": str(files[1])}
        for name, file in (("fine", files[0]), ("noisy", tmp_path / "noisy.nii.gz"))
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    options = {"datalist": str(tmp_path / "list.json"), "output_dir": str(tmp_path / "out"), "fail_on": "failed"}
    assert message_of(lambda: infer("cine", **options)) == "--fail_on failed: 1 of 2 cines: noisy (failed)."
    assert "noisy: verdict failed: a frame is less like the reference frame" in caplog.text
    records = [json.loads((tmp_path / "out" / name / "metrics.json").read_text()) for name in ("fine", "noisy")]
    assert [record["verdict"]["verdict"] for record in records] == ["good", "failed"]
    assert set(records[0]["verdict"]) == {"verdict", "reasons", "score", "evidence"}
    tracked = Registration.load("cardiac").track(*files)
    assert tracked.evidence == pytest.approx(records[0]["verdict"]["evidence"], rel=1e-4)
    stored = nib.load(tmp_path / "out" / "fine" / "displacement.nii.gz").get_fdata()
    np.testing.assert_allclose(displacement_image(tracked).get_fdata(), stored, atol=1e-4)
    assert "noisy (failed)" in message_of(lambda: infer("cine", **options))  # both are done
    assert main([options["output_dir"]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("cine", "fine", "noisy"))] == [
        "verdict",
        "good",
        "failed",
    ]
