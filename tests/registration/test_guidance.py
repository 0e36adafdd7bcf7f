"""What a user knows of a pair, from files and arrays to the network and the result."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from scripts import Registration
from scripts.deformation.formats import ddf_to_itk
from scripts.deformation.transforms import Affine
from scripts.images.frame import grid_corners
from scripts.networks import VoxelMorph
from scripts.registration.inferer import RegistrationInferer
from scripts.registration.preprocessing import preprocess_pair

from ..conftest import ROOT, Shift, blobs, message_of, meta, oblique_affine

SHAPE = (18, 20, 16)
SPACING, FLIP = (1.5, 1.0, 2.0), (-1, 1, 1)


def image(seed=0, affine=None, shape=SHAPE):
    affine = oblique_affine(SPACING, (10, -20, 5), (20, -10), FLIP) if affine is None else affine
    return MetaTensor(torch.from_numpy(blobs(shape, seed).astype(np.float32))[None], affine=torch.from_numpy(affine))


def still(**options):
    """A registration whose network moves nothing."""
    preprocessing = preprocess_pair(3, (-1, -1, -1), (-1, -1, -1), **options)
    return Registration(Shift((0, 0, 0)), preprocessing, RegistrationInferer(3))


def demons(**options):
    return Registration.classical(3, num_repeats=(4, 4), device="cpu", **options)


def mask_of(like, holes):
    values = torch.ones_like(like.as_tensor())
    values[(0, *holes)] = 0
    return MetaTensor(values, affine=like.affine)


HOLE = (slice(7, 12), slice(8, 13), slice(6, 10))


def world_shift(affine, millimetres):
    """The displacement in voxels of a shift of the world."""
    return torch.linalg.solve(affine[:3, :3].double(), torch.tensor(millimetres, dtype=torch.float64)).float()


@pytest.mark.parametrize("form", ["matrix", "transform", "mat", "field"])
def test_an_initial_transform_is_part_of_the_displacement_whatever_its_form(form, tmp_path):
    fixed, shift = image(), (3.0, -2.0, 4.5)
    moving = MetaTensor(fixed.as_tensor(), affine=fixed.affine.clone())
    moving.affine[:3, 3] += torch.tensor(shift, dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor(shift)
    expected = world_shift(fixed.affine, shift)
    initial = {"matrix": matrix.numpy(), "transform": Affine(matrix)}.get(form)
    if form == "mat":  # ITK is in LPS
        initial = tmp_path / "initial.txt"
        initial.write_text(
            "#Insight Transform File V1.0\n#Transform 0\nTransform: TranslationTransform_double_3_3\n"
            "Parameters: -3 2 4.5\nFixedParameters:\n"
        )
    if form == "field":
        reference = nib.Nifti1Image(np.zeros(SHAPE, np.float32), fixed.affine.numpy())
        initial = tmp_path / "field.nii.gz"
        nib.save(ddf_to_itk(expected.view(3, 1, 1, 1).expand(3, *SHAPE).numpy(), reference), initial)
    result = still()(fixed, moving, initial_transform=initial)
    torch.testing.assert_close(result.ddf.as_tensor(), expected.view(3, 1, 1, 1).expand(3, *SHAPE), atol=1e-4, rtol=0)
    torch.testing.assert_close(result.warped.as_tensor(), fixed.as_tensor(), atol=0.05, rtol=0)
    torch.testing.assert_close(result.resampled.as_tensor(), result.warped.as_tensor(), atol=0.05, rtol=0)
    assert result.metrics["ncc"]["before"] == pytest.approx(1, abs=1e-4)
    inverse = result.inverse.as_tensor()
    torch.testing.assert_close(inverse[:, 8:10, 9:11, 8], -expected.view(3, 1, 1).expand(3, 2, 2), atol=0.02, rtol=0)


def test_the_network_sees_the_moving_image_through_the_initial_transform(tmp_path):
    fixed, moving = image(), image(1)
    bend = torch.zeros(3, *SHAPE)
    bend[1] = torch.linspace(-2, 2, SHAPE[0]).view(-1, 1, 1)
    path = tmp_path / "bend.nii.gz"
    nib.save(ddf_to_itk(bend.numpy(), nib.Nifti1Image(np.zeros(SHAPE, np.float32), fixed.affine.numpy())), path)
    moving.affine = fixed.affine
    data = still().preprocessing({"fixed": fixed, "moving": moving, "initial_transform": str(path)})
    sampled = still()(fixed, moving, initial_transform=path)
    torch.testing.assert_close(sampled.ddf.as_tensor(), bend, atol=1e-4, rtol=0)
    seen = data["moving"].as_tensor()[0].flip(0)[:, 3:-3]  # the network's grid is RAS; beyond the image they differ
    expected = sampled.warped.as_tensor()[0, :, 3:-3]
    assert np.corrcoef(seen.ravel(), expected.ravel())[0, 1] > 0.995
    assert np.corrcoef(seen.ravel(), moving.as_tensor()[0, :, 3:-3].ravel())[0, 1] < 0.99


def test_a_lesion_outside_of_the_mask_does_not_change_the_registration():
    fixed, moving = image(), image(1)
    lesion = moving.clone()
    lesion[(0, *HOLE)] = 3000.0
    register = demons()
    mask = mask_of(moving, HOLE)
    clean, masked, naive = register(fixed, moving), register(fixed, lesion, mask_moving=mask), register(fixed, lesion)
    weight = still()(fixed, mask_of(moving, HOLE)).warped.as_tensor()[0] > 0.9
    error = [float((r.ddf - clean.ddf).as_tensor().norm(dim=0)[weight].mean()) for r in (masked, naive)]
    assert error[0] < 0.25 * error[1]
    other = moving.clone()
    other[(0, *HOLE)] = -500.0
    again = register(fixed, other, mask_moving=mask)
    torch.testing.assert_close(again.ddf.as_tensor(), masked.ddf.as_tensor())


def test_a_mask_may_lie_on_a_grid_of_its_own():
    fixed, moving = image(), image(1)
    mask = mask_of(fixed, HOLE)
    turned = MetaTensor(mask.as_tensor().flip(2).permute(0, 3, 1, 2), affine=None)
    change = torch.zeros(4, 4, dtype=torch.float64)  # from voxels of the turned grid (k, i, j) to (i, j, k)
    change[0, 1] = change[2, 0] = change[3, 3] = 1
    change[1, 2], change[1, 3] = -1, SHAPE[1] - 1
    turned.affine = fixed.affine @ change
    register = demons()
    first, second = (register(fixed, moving, mask_fixed=each).ddf for each in (mask, turned))
    torch.testing.assert_close(first.as_tensor(), second.as_tensor())


def test_landmarks_of_a_file_and_of_an_array_are_brought_together(tmp_path):
    fixed, moving = image(), image(1)
    center = (fixed.affine @ torch.tensor([8.0, 9, 7, 1], dtype=torch.float64))[:3].numpy()
    aim = center + np.array([2.0, -1.0, 3.0])
    points = tmp_path / "points.csv"
    points.write_text("x,y,z\n" + ",".join(f"{value:.6f}" for value in center) + "\n")
    result = demons()(fixed, moving, landmarks=(points, aim[None]))
    expected = world_shift(fixed.affine, aim - center)
    torch.testing.assert_close(result.ddf[:, 8, 9, 7].as_tensor(), expected, atol=0.02, rtol=0)


def test_contrasts_and_labels_drive_the_registration():
    fixed, moving = image(), image(1)
    labels = [MetaTensor((x > 500).float(), affine=x.affine) for x in (moving, fixed)]
    register = demons(use_labels=True, channel_weights=[1, 0.25])
    result = register([fixed, image(2)], [moving, image(3)], *labels)
    assert result.metrics["dice"]["after"]["mean"] > 0.9 > 0.8 > result.metrics["dice"]["before"]["mean"]
    assert any("both label maps drive" in text for text in result.warnings)
    equal, faint = (demons(channel_weights=[1, w])([fixed, image(2)], [moving, image(3)]) for w in (1, 1e-10))
    plain = demons()(fixed, moving)
    torch.testing.assert_close(faint.ddf.as_tensor(), plain.ddf.as_tensor(), atol=0.01, rtol=0)
    assert (equal.ddf - plain.ddf).abs().mean() > 0.2


def test_the_files_are_recorded_with_the_result(infer, save, samples, tmp_path):
    heart = str(samples / "sunnybrook" / "SC-N-10" / "SC-N-10")
    image_file = nib.load(f"{heart}_ES.nii.gz")
    hole = np.ones(image_file.shape, np.uint8)
    hole[60:70, 60:70] = 0
    mask = save("mask.nii.gz", hole, image_file.affine)
    fixed = [f"{heart}_ED.nii.gz"] * 2
    infer(fixed=fixed, moving=[f"{heart}_ES.nii.gz"] * 2, mask_moving=mask, output_dir=str(tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(record["sha256"]) == {
        "weights", "fixed", "moving", "mask_moving", "contrasts_fixed_2", "contrasts_moving_2",
    }  # fmt: skip


def middle(of):
    return (of.affine @ grid_corners(of))[:3].mean(1).numpy()[None]


def far(like):
    affine = like.affine.clone()
    affine[:3, 3] += 5000
    return MetaTensor(torch.ones(1, *SHAPE), affine=affine)


def bad_pairs():
    """What is given in addition to two images, and what is said about it."""
    fixed, moving = image(), image(1)
    halves = {"mask_fixed": mask_of(fixed, (slice(0, 9),)), "mask_moving": mask_of(fixed, (slice(9, None),))}
    empty, grey = (MetaTensor(x, affine=fixed.affine) for x in (torch.zeros(1, *SHAPE), fixed.as_tensor() / 7))
    center = middle(fixed)
    return [
        ({"mask_fixed": empty}, "mask_fixed: the image in memory marks no voxel of the image in memory"),
        ({"mask_moving": far(moving)}, "mask_moving: the image in memory marks no voxel"),
        (halves, "mask_fixed and mask_moving have no point in common"),
        ({"mask_fixed": grey}, "mask_fixed: the image in memory holds fractions from"),
        ({"landmarks": (np.full((1, 3), 900.0), center)}, "landmarks_fixed: point 1 at (900.0, 900.0, 900.0) mm lies"),
        ({"landmarks": (center.repeat(2, 0), center)}, "landmarks: found 2 in fixed and 1 in moving: expected pairs"),
        ({"landmarks": (np.zeros((1, 2)), center)}, "landmarks_fixed has shape (1, 2)"),
        ({"landmarks": ("a.xyz", center)}, "landmarks_fixed: a.xyz is not named as a file of points"),
        ({"fixed": [fixed, fixed]}, "fixed has 2 images and moving has 1: expected as many of both"),
        ({"moving": []}, "moving is an empty list"),
        ({"initial_transform": np.zeros((4, 4))}, "initial_transform: expected a file, a transform, or a 4x4 matrix"),
        ({"initial_transform": "a.xyz"}, "initial_transform: a.xyz is not named as a transform"),
    ]


def test_what_does_not_fit_is_named():
    register = demons()
    for change, expected in bad_pairs():
        assert expected in message_of(
            lambda change=change: register(**{"fixed": image(), "moving": image(1), **change})
        )


def test_options_that_do_not_fit_are_named():
    fixed, moving = image(), image(1)
    assert "use_labels needs both label maps: label_fixed is missing" in message_of(
        lambda: demons(use_labels=True)(fixed, moving)
    )
    assert "channel_weights has 3 numbers and each side 1 images" in message_of(
        lambda: demons(channel_weights=[1, 2, 3])(fixed, moving)
    )
    assert "channel_weights is '-1': expected a number above 0" in message_of(lambda: demons(channel_weights=[1, -1]))
    labels = [MetaTensor(torch.full((1, *SHAPE), n), affine=fixed.affine) for n in (1, 2)]
    assert "have no id in common" in message_of(lambda: demons(use_labels=True)(fixed, moving, *labels))
    network = VoxelMorph(3)
    plain = Registration(network, preprocess_pair(3, (-1, -1, -1), (16, 16, 16)), RegistrationInferer(3))
    assert "the network is a VoxelMorph" in message_of(lambda: plain(fixed, moving, mask_fixed=mask_of(fixed, HOLE)))


def test_a_stack_takes_masks_and_landmarks_slice_by_slice():
    fixed, moving = (meta(torch.from_numpy(blobs((24, 26, 4), seed).astype(np.float32))) for seed in (0, 1))
    point = np.array([[11.0, 12.0, 2.0]])
    register = Registration.classical(2, num_repeats=(3, 3), device="cpu")
    result = register(
        fixed,
        moving,
        mask_fixed=mask_of(fixed, (slice(3, 8), slice(3, 8))),
        landmarks=(point, point + np.array([2, -3, 0])),
    )
    plain = register(fixed, moving, mask_fixed=mask_of(fixed, (slice(3, 8), slice(3, 8))))
    torch.testing.assert_close(result.ddf[:, 11, 12, 2].as_tensor(), torch.tensor([2.0, -3.0, 0.0]), atol=0.1, rtol=0)
    others = [0, 1, 3]
    torch.testing.assert_close(result.ddf[..., others].as_tensor(), plain.ddf[..., others].as_tensor())


@pytest.mark.slow
def test_the_examples_of_the_document(tmp_path):
    text = (ROOT / "docs" / "inputs.md").read_text()
    for name in ("configs", "models", "scripts", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks:
        subprocess.run(["bash", "-e", "-c", block], cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    results = {file.parent.name: json.loads(file.read_text()) for file in (tmp_path / "eval").glob("*/metrics.json")}
    assert set(results) == {"lesion", "first", "second", "contrasts", "landmarks", "labels"}
    assert results["labels"]["dice"]["after"]["mean"] > 0.95
    first, second = (nib.load(tmp_path / "eval" / n / "displacement.nii.gz").get_fdata() for n in ("first", "second"))
    np.testing.assert_allclose(first, second, atol=0.02)
    field = sitk.DisplacementFieldTransform(
        sitk.ReadImage(str(tmp_path / "eval/landmarks/displacement.nii.gz"), sitk.sitkVectorFloat64)
    )
    for fixed, moving in (((14, 20, 12), (15, 22, 13)), ((20, 30, 14), (21, 31, 15))):  # RAS; ITK is in LPS
        found = np.array(field.TransformPoint([-fixed[0], -fixed[1], fixed[2]])) * (-1, -1, 1)
        np.testing.assert_allclose(found, moving, atol=0.3)
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)
