"""Cines of known motion: what the law says of areas and lengths."""

import json

import nibabel as nib
import numpy as np
import pytest

from scripts.heart import label_names, read_cine
from scripts.heart.strain import measure_strain
from scripts.tools.cines import Motion, main, make_cine, still_cine, true_motion

from ..conftest import blobs

SHAPE, CENTER = (80, 80, 3), 40
AFFINE = np.diag([1.5, 1.5, 8, 1.0])


@pytest.fixture
def heart(save):
    i, j = np.meshgrid(*[np.arange(80) - CENTER] * 2, indexing="ij")
    r = np.hypot(i, j)
    label = np.stack([np.where(r < 12 - z, 3, np.where(r < 18 - z, 2, 0)) for z in range(3)], -1).astype(np.uint8)
    return save("image.nii.gz", blobs(SHAPE), AFFINE), save("label.nii.gz", label, AFFINE)


def truth_of(heart, motion):
    image, label = heart
    return true_motion(read_cine(still_cine(nib.load(image)), label, 0, label_names("acdc")), motion)


def test_the_wall_keeps_its_area_and_shortens_as_asked(heart):
    truth = truth_of(heart, Motion(frames=4, shortening=0.18, rotation=0))
    wall = truth.volumes["Myo"]
    assert wall[2] == pytest.approx(wall[0], rel=0.02)  # central differences across its border
    strain = measure_strain(truth)
    assert 100 * strain.circumferential["global"][2] == pytest.approx(-18, abs=0.5)
    assert truth.ddf[0].abs().max() < 1e-6
    np.testing.assert_allclose(truth.ddf[1], truth.ddf[3], atol=1e-5)  # the cycle is symmetric


def test_base_and_apex_turn_against_each_other(heart):
    strain = measure_strain(truth_of(heart, Motion(frames=4, shortening=0, rotation=5)))
    assert abs(strain.twist[2]) == pytest.approx(10, abs=0.05)
    assert np.abs(strain.circumferential["global"]).max() < 2e-3


def test_frames_show_the_moved_heart(heart):
    motion = Motion(frames=4, noise=0)
    truth = truth_of(heart, motion)
    frames = make_cine(truth, motion)
    image = np.asarray(nib.load(heart[0]).dataobj, np.float32)
    np.testing.assert_allclose(frames[..., 0], image, atol=0.01)
    x, y = 40 + 15, 40  # a point of the wall at the base, and where it lies at end-systole
    moved = np.array([x, y]) + truth.ddf[2, :, x, y, 0].numpy()
    assert moved[0] < x - 1
    from scipy.ndimage import map_coordinates

    assert map_coordinates(frames[:, :, 0, 2], moved[:, None], order=3) == pytest.approx(image[x, y, 0], abs=3)


def test_a_cine_by_the_command(heart, tmp_path):
    image, label = heart
    main(["--image", image, "--label", label, "--output_dir", str(tmp_path / "out"), "--frames", "5"])
    cine = nib.load(tmp_path / "out" / "cine.nii.gz")
    assert cine.shape == (*SHAPE, 5)
    assert cine.header.get_zooms()[3] == pytest.approx(0.2)
    assert nib.load(tmp_path / "out" / "displacement.nii.gz").shape == (*SHAPE, 5, 3)
    assert json.loads((tmp_path / "out" / "truth.json").read_text())["frames"] == 5
