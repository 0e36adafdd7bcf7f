"""The pictures of a pair."""

import base64
import io
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from scripts.report.entries import find_entries
from scripts.report.pictures import draw_pair

from ..conftest import load_json
from .conftest import SHAPE, add_error_map


def draw(folder):
    (entry,) = find_entries([folder]).entries
    return draw_pair(entry)


def pixels(address):
    head, data = address.split(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def change(path, where, value):
    image = nib.load(path)
    values = np.asarray(image.dataobj).copy()
    values[where] = value
    nib.save(nib.Nifti1Image(values, image.affine, image.header), path)


def test_three_planes_on_one_scale_with_all_that_is_there(registered, tmp_path):
    registered(tmp_path)
    pictures = draw(tmp_path)
    assert [plane.name for plane in pictures.planes] == ["axis k = 6", "axis j = 7", "axis i = 8"]
    # 16 x 14 x 12 voxels of 1 mm, the longest side in 380 pixels
    assert [plane.size for plane in pictures.planes] == [(380, 332), (380, 285), (332, 285)]
    assert [plane.sides for plane in pictures.planes] == [tuple("LRPA"), tuple("LRIS"), tuple("PAIS")]
    expected = {"fixed", "moving", "warped", "label_fixed", "label_warped", "grid", "jacobian"}
    assert all(set(plane.layers) == expected for plane in pictures.planes)
    assert (pictures.notes, pictures.largest_error) == ([], None)
    axial = {key: pixels(address) for key, address in pictures.planes[0].layers.items()}
    assert axial["fixed"].shape == (14, 16, 3)
    assert axial["grid"].shape == axial["label_fixed"].shape == (332, 380, 3)
    assert (axial["jacobian"] == 247).all()  # white: the volume is the same
    # warped(x) = moving(x + 1) = fixed(x), and the moving image is one voxel further; but for the last column
    inner = np.abs(axial["warped"] - axial["fixed"])[:, :-1]
    assert inner.mean() < 3 < np.abs(axial["moving"] - axial["fixed"])[:, :-1].mean()
    assert np.abs(axial["moving"][:, 1:] - axial["fixed"][:, :-1]).mean() < 3


def test_folds_are_magenta_and_errors_have_a_scale_of_round_numbers(registered, tmp_path):
    registered(tmp_path)
    change(tmp_path / "jacobian_determinant.nii.gz", (2, 3, 6), -0.1)
    errors = np.full(SHAPE, 1.3)
    errors[5, :, 6] = 0  # a column of the first plane
    add_error_map(tmp_path, errors)
    pictures = draw(tmp_path)
    assert pictures.largest_error == 2
    axial = {key: pixels(address) for key, address in pictures.planes[0].layers.items()}
    folded = (axial["jacobian"] == (255, 0, 255)).all(-1)
    assert np.argwhere(folded).tolist() == [[13 - 3, 2]]  # the second axis leads upwards
    assert (axial["error"][:, 5] == (0, 0, 4)).all()
    # 1.3 of 2 mm is 21 of 32 steps, .656; .594 of the way between the colours at 4/7 and 5/7
    assert (axial["error"][:, 6] == np.round(np.array([212, 72, 66]) + 0.59375 * np.array([33, 53, -45]))).all()


def test_the_image_before_is_that_after_the_alignment_alone(registered, tmp_path):
    shift = torch.eye(4, dtype=torch.float64)
    shift[0, 3] = 1.0  # the moving world is 1 mm further, and so is the moving image
    registered(tmp_path, alignment=shift)
    axial = {key: pixels(address) for key, address in draw(tmp_path).planes[0].layers.items()}
    assert np.abs(axial["moving"] - axial["fixed"])[:, :-1].mean() < 3


@pytest.mark.parametrize("linked", [False, True])
def test_names_of_bids_are_found_also_behind_links(registered, tmp_path, linked):
    out = tmp_path / "out"
    registered(out, names="bids", stem="sub-01_ses-1_")
    assert not (out / "moving_warped.nii.gz").exists()
    if linked:  # metrics.json has the file that a link leads to
        path = out / "metrics.json"
        path.write_text(path.read_text().replace("sub-01_ses-1_", "annexed"))
        record = load_json(path)
        names = sorted(file.name for file in out.iterdir())
        path.write_text(json.dumps({**record, "outputs": names}))
    layers = draw(out).planes[0].layers
    assert {"warped", "label_warped", "grid", "jacobian"} <= set(layers)


def test_files_without_entities_of_bids_are_found(registered, tmp_path):
    registered(tmp_path, names="bids", outputs=["displacement", "displacement_inverse", "jacobian_determinant"])
    names = {path.name for path in tmp_path.glob("*.nii.gz")}
    assert names == {f"from-{way}_mode-image_xfm.nii.gz" for way in ("moving_to-fixed", "fixed_to-moving")} | {
        "space-fixed_desc-jacobian_map.nii.gz"
    }
    assert {"grid", "jacobian"} <= set(draw(tmp_path).planes[0].layers)
    (entry,) = find_entries([tmp_path]).entries
    assert entry.output("displacement.nii.gz") == tmp_path / "from-moving_to-fixed_mode-image_xfm.nii.gz"


def test_results_of_older_versions_do_not_say_what_was_written(registered, tmp_path):
    registered(tmp_path)
    record = load_json(tmp_path / "metrics.json")
    del record["outputs"]
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    assert {"fixed", "moving", "warped", "grid", "jacobian"} <= set(draw(tmp_path).planes[0].layers)


def test_what_cannot_be_shown_is_said(registered, tmp_path):
    files = registered(tmp_path / "out")
    change(files["fixed"], 0, 1)
    (tmp_path / "out" / "displacement.nii.gz").write_bytes(b"damaged")
    pictures = draw(tmp_path / "out")
    assert f"fixed: {files['fixed']} has changed since the registration." in pictures.notes
    assert any("displacement.nii.gz cannot be read" in note for note in pictures.notes)
    assert not {"fixed", "grid"} & set(pictures.planes[0].layers)
    for file in (tmp_path / "out").glob("*.nii.gz"):
        file.unlink()
    assert draw(tmp_path / "out").notes == ["There are no pictures: no result on the grid of the fixed image is there."]
