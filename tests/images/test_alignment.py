"""The alignment before the network: known maps must be found, on any grid, and carried to the results."""

from itertools import product

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.deformation.grid import apply_affine, lattice, sample
from scripts.images import AlignWorldsd, LoadPaird, find_affine
from scripts.images import affine as affine_module
from scripts.support.errors import InputError

from ..conftest import blobs, load_json, oblique_affine


def shifted(x, y=0.0, z=0.0, spacing=(1, 1, 1)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (x, y, z)
    return affine


def pair(save, fixed_affine=None, moving_affine=None, shape=(10, 10, 10)):
    return {
        "fixed": save("f.nii", blobs(shape), fixed_affine),
        "moving": save("m.nii", blobs(shape, 1), moving_affine),
    }


def test_world_alignment_changes_nothing(save):
    data = LoadPaird(3)(pair(save, shifted(3), shifted(5)))
    aligned = AlignWorldsd("world")(data)
    assert torch.equal(aligned["alignment"], torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(aligned["moving"].affine, data["moving"].affine)


def test_center_alignment_maps_centre_to_centre(save):
    data = LoadPaird(3)(pair(save, shifted(3), shifted(500, -40, 7, spacing=(2, 1, 1))))
    aligned = AlignWorldsd("centers")(data)
    # centres: 3 + 4.5 = 7.5 and 500 + 9 = 509 along x
    assert aligned["alignment"][:3, 3].tolist() == [501.5, -40.0, 7.0]
    centre = aligned["moving"].affine @ torch.tensor([4.5, 4.5, 4.5, 1], dtype=torch.float64)
    assert centre[:3].tolist() == [7.5, 4.5, 4.5]
    assert data["moving"].affine[0, 3] == 500, "the image as read must keep its affine"


def test_no_overlap_in_world_space(save):
    data = LoadPaird(3)(pair(save, shifted(0), shifted(100)))
    with pytest.raises(InputError, match=r"do not overlap in world space: found -0..10 x .* and 100..110 x"):
        AlignWorldsd("world")(data)
    with pytest.raises(InputError, match="unknown alignment 'center': expected world, centers, auto or affine"):
        AlignWorldsd("center")


def test_what_the_moving_image_does_not_show_is_said(save, caplog):
    AlignWorldsd("world")(LoadPaird(3)(pair(save, shifted(0), shifted(0.5))))
    assert not caplog.records, "half of a plane is not seen"
    AlignWorldsd("world")(LoadPaird(3)(pair(save, shifted(0), shifted(5))))
    # blobs have values above their minimum nearly everywhere; 16 sampled planes, of which 8 lie in the upper half
    assert "50 % of fixed: " in caplog.text
    assert "m.nii: the displacement is only continued there." in caplog.text
    AlignWorldsd("centers")(
        LoadPaird(3)(pair(save, shape=(12, 10, 10)) | {"moving": save("n.nii", blobs((6, 10, 10)))})
    )
    assert len(caplog.records) == 1, "crops differ in size"


# rotation by (20, -12) degrees, scaling by (1.1, 0.92, 1.05), shear and shift: nothing is symmetric
KNOWN = torch.from_numpy(oblique_affine((1.1, 0.92, 1.05), (21, -13, 34), (20, -12), (1, 1, 1)))
KNOWN[:3, :3] @= torch.tensor([[1, 0.08, -0.05], [0, 1, 0.06], [0, 0, 1]], dtype=torch.float64)


def image_on_grid(source, to_source, affine, shape, name):
    """The values of a source at world points mapped by ``to_source`` (4x4), on another grid."""
    to_voxels = torch.linalg.solve(source.affine.double(), to_source @ torch.from_numpy(affine))
    values = sample(source.as_tensor(), apply_affine(to_voxels, lattice(shape)), fill=0)
    return MetaTensor(values, affine=torch.from_numpy(affine), meta={"filename_or_obj": name})


def centered(affine, shape, point):
    affine[:3, 3] = np.asarray(point) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def brain_corners(image):
    """World points of the corners of the box around everything above 0, (3, 8)."""
    inside = torch.nonzero(image[0].as_tensor() > 0)
    corners = torch.tensor(list(product(*zip(inside.amin(0).tolist(), inside.amax(0).tolist()))), dtype=torch.float64)
    return apply_affine(image.affine, corners.T)


@pytest.mark.slow
def test_a_known_affine_of_a_brain_is_found_on_oblique_flipped_grids(samples):
    brain = LoadPaird(3)(dict.fromkeys(("fixed", "moving"), samples / "brain_synthetic" / "synthetic_19" / "t1.nii.gz"))
    brain = brain["fixed"]
    middle = torch.tensor([0, -18, 8], dtype=torch.float64)
    fixed_shape, moving_shape = (80, 120, 70), (100, 130, 110)
    fixed_affine = oblique_affine((2.4, 1.9, 2.7), (0, 0, 0), (10, 15), (1, -1, 1))
    moving_affine = oblique_affine((2.2, 2.0, 1.8), (0, 0, 0), (-15, 25), (-1, 1, 1))
    fixed = image_on_grid(
        brain, torch.eye(4, dtype=torch.float64), centered(fixed_affine, fixed_shape, middle), fixed_shape, "f.nii"
    )
    # moving(known(x)) = fixed(x), in another contrast
    moving_affine = centered(moving_affine, moving_shape, apply_affine(KNOWN, middle) + 5)
    moving = image_on_grid(brain, torch.linalg.inv(KNOWN), moving_affine, moving_shape, "m.nii")
    moving = MetaTensor(300 - moving, meta=moving.meta).where(moving > 0, 0 * moving)
    found = AlignWorldsd("affine")({"fixed": fixed, "moving": moving})["alignment"]
    assert found.dtype == torch.float64
    points = brain_corners(fixed)
    assert (points - apply_affine(KNOWN, points)).norm(dim=0).min() > 10
    assert (apply_affine(found, points) - apply_affine(KNOWN, points)).norm(dim=0).max() < 1


def hippocampus_pair(samples, index=0):
    folder = samples / "hippocampus"
    pair = load_json(folder / "pairs.json")[index]
    return {key: str(folder / pair[key]) for key in ("fixed", "moving", "label_fixed", "label_moving")}


def test_the_same_files_give_the_same_affine_and_labels_move_along(samples):
    data = LoadPaird(3)(hippocampus_pair(samples))
    first = AlignWorldsd("affine", keys=("moving", "label_moving"))(data)
    assert torch.equal(first["alignment"], find_affine(data["fixed"], data["moving"]))
    expected = torch.linalg.inv(first["alignment"]) @ data["moving"].affine
    torch.testing.assert_close(first["moving"].affine, expected)
    torch.testing.assert_close(first["label_moving"].affine, expected)
    assert torch.equal(data["label_moving"].affine, data["moving"].affine), "what was read must keep its affine"


@pytest.mark.slow
def test_a_rotated_header_makes_no_difference_to_the_registration(infer, samples, save, tmp_path):
    pair = hippocampus_pair(samples)
    moved = dict(pair)
    turn = oblique_affine((1, 1, 1), (200, -70, 35), (25, -20), (1, 1, 1))
    for key in ("moving", "label_moving"):
        image = nib.load(pair[key])
        moved[key] = save(f"{key}.nii.gz", np.asarray(image.dataobj), turn @ image.affine)
    for name, files in (("plain", pair), ("moved", moved)):
        infer("hippocampus", **files, alignment="affine", output_dir=str(tmp_path / name))
    infer("hippocampus", **pair, output_dir=str(tmp_path / "centers"))
    dice = {name: load_json(tmp_path / name / "metrics.json")["dice"] for name in ("plain", "moved", "centers")}
    assert dice["plain"]["before"]["mean"] > dice["centers"]["before"]["mean"] + 0.05
    for name in ("plain", "moved"):
        assert dice[name]["after"]["mean"] > dice[name]["before"]["mean"] + 0.02
    for when in ("before", "after"):
        assert dice["moved"][when]["mean"] == pytest.approx(dice["plain"][when]["mean"], abs=0.02)


def test_an_affine_that_cannot_be_right_names_both_files(save, monkeypatch):
    data = LoadPaird(3)(pair(save))
    monkeypatch.setattr(affine_module, "_register", lambda *_: torch.diag(torch.tensor([2.0, 2, 2, 1]).double()))
    with pytest.raises(InputError, match=r"fixed: .*f.nii and moving: .*m.nii could not .* 8 times, expected 0.2 to 5"):
        AlignWorldsd("affine")(data)
    far = torch.eye(4, dtype=torch.float64)
    far[0, 3] = 100
    monkeypatch.setattr(affine_module, "_register", lambda *_: far)
    with pytest.raises(InputError, match=r"f.nii and moving: .*m.nii could not be aligned .* a common part"):
        AlignWorldsd("affine")(data)


def test_what_cannot_be_registered_names_both_files(save):
    thin = LoadPaird(3)({"fixed": save("f.nii", blobs((10, 10, 10))), "moving": save("m.nii", blobs((10, 10, 3)))})
    with pytest.raises(InputError, match=r"f.nii and .*m.nii have .* \(10, 10, 10\) and \(10, 10, 3\): expected"):
        AlignWorldsd("affine")(thin)


def test_a_constant_image_cannot_be_matched_and_stays(save):
    data = LoadPaird(3)({**pair(save), "moving": save("c.nii", np.ones((10, 10, 10)))})
    with pytest.raises(InputError, match="c.nii: one of them is constant: expected images for an affine alignment"):
        find_affine(data["fixed"], data["moving"])
    assert torch.equal(AlignWorldsd("affine")(data)["alignment"], torch.eye(4, dtype=torch.float64))


def test_a_failure_inside_simpleitk_is_one_line(save, monkeypatch):
    def fail(*_):
        raise RuntimeError(
            "Exception thrown in ...\nITK ERROR: Metric(0x55): All samples map outside. Do this. Or that.\n"
        )

    monkeypatch.setattr(affine_module, "_register", fail)
    with pytest.raises(InputError, match=r"m.nii could not be aligned by an affine map \(All samples"):
        AlignWorldsd("affine")(LoadPaird(3)(pair(save)))
