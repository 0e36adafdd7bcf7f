"""Files written together, skipped when done, and never replaced by surprise."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.results.writer import OUTPUTS, RegistrationWriter
from scripts.support.errors import InputError

from ..conftest import blobs, load_json


@pytest.fixture
def pair(save, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    return {"name": "case", "fixed": save("f.nii", blobs((8, 7, 6))), "moving": save("m.nii", blobs((8, 7, 6), 1))}


def result(with_label=True, **changes):
    image = MetaTensor(torch.from_numpy(blobs((8, 7, 6)).astype(np.float32))[None])
    field = torch.zeros(3, 8, 7, 6)
    values = {
        "native_fixed": image,
        "resampled": image.as_tensor(),
        "warped": image.as_tensor(),
        "ddf": field,
        "inverse_ddf": field,
        "jacobian": torch.ones(8, 7, 6),
        "metrics": {"ncc": float("nan")},
    }
    if with_label:
        values["warped_label"] = torch.full((1, 8, 7, 6), 70000.0)
    return {**values, **changes}


def writer(tmp_path, **options):
    return RegistrationWriter(tmp_path / "out", tmp_path / "model.pt", **options)


def test_writes_all_files_and_nothing_else(pair, tmp_path):
    writer(tmp_path).write(pair, result(), {"read": 1.0})
    folder = tmp_path / "out" / "case"
    assert sorted(p.name for p in folder.iterdir()) == sorted(OUTPUTS)
    metrics = load_json(folder / "metrics.json")
    assert metrics["ncc"] is None
    assert set(metrics["sha256"]) == {"weights", "fixed", "moving"}
    assert nib.load(folder / "label_warped.nii.gz").get_fdata().max() == 70000


def test_is_done_only_for_the_same_files_and_weights(pair, tmp_path, save):
    assert not writer(tmp_path).is_done(pair)
    writer(tmp_path).write(pair, result(), {})
    assert writer(tmp_path).is_done(pair)
    assert not writer(tmp_path, overwrite=True).is_done(pair)
    other = {**pair, "moving": save("other.nii", blobs((8, 7, 6), 2))}
    with pytest.raises(InputError, match=r"out/case holds the result of other files or weights: .*--overwrite true"):
        writer(tmp_path).is_done(other)
    (tmp_path / "model.pt").write_bytes(b"other weights")
    with pytest.raises(InputError, match="other files or weights"):
        writer(tmp_path).is_done(pair)


def test_a_failure_while_writing_leaves_the_old_result_whole(pair, tmp_path):
    writer(tmp_path).write(pair, result(), {})
    folder = tmp_path / "out" / "case"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises((RuntimeError, ValueError)):
        writer(tmp_path).write(pair, result(jacobian=torch.ones(3)), {})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_overwriting_removes_what_is_not_written_again(pair, tmp_path):
    writer(tmp_path).write(pair, result(), {})
    writer(tmp_path).write(pair, result(with_label=False), {})
    assert not (tmp_path / "out" / "case" / "label_warped.nii.gz").exists()


def test_an_output_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output_dir: .*file/out cannot be written to \(Not a directory\)"):
        RegistrationWriter(tmp_path / "file" / "out", "model.pt").prepare()
