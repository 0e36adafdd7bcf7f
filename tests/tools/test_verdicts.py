"""What the verdicts are learned from: planted faults, the regression, and the areas under the ROC curves."""

import nibabel as nib
import numpy as np
import pytest

from scripts.tools.faults import FAULTS, replace_organ, skull_on
from scripts.tools.verdicts import _area, good_and_bad, learn, test
from scripts.verdict.judge import REASONS

test.__test__ = False  # not a test of pytest


def pair(shape=(8, 10, 6)):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return nib.Nifti1Image(values, np.diag([1.5, 2, 3, 1])), nib.Nifti1Image((values % 7).astype(np.int16), np.eye(4))


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_fault_changes_the_image_or_its_place_and_keeps_the_grids_equal(name, spatial_dims):
    image, label = pair()
    faulty, faulty_label = FAULTS[name](image, label, np.random.default_rng(1), spatial_dims)
    assert faulty.shape == faulty_label.shape
    same = faulty.shape == image.shape and np.array_equal(faulty.get_fdata(), image.get_fdata())
    assert not same or not np.array_equal(faulty.affine, image.affine)
    again, _ = FAULTS[name](image, label, np.random.default_rng(1), spatial_dims)
    assert np.array_equal(again.get_fdata(), faulty.get_fdata())


def test_half_a_shift_half_a_crop_and_half_a_circle_by_hand():
    image, label = pair((4, 4, 2))
    values = image.get_fdata()
    turned, _ = FAULTS["turned by 180 degrees"](image, label, np.random.default_rng(0), 2)
    np.testing.assert_array_equal(turned.get_fdata(), values[::-1, ::-1])
    shifted, _ = FAULTS["shifted by a half"](image, label, np.random.default_rng(0), 2)
    assert (shifted.get_fdata() == 0).sum() >= values.size / 2
    cropped, _ = FAULTS["cropped to a half"](image, label, np.random.default_rng(0), 2)
    assert cropped.get_fdata().size == values.size / 2
    first = (cropped.affine @ [0, 0, 0, 1])[:3] / [1.5, 2, 3]  # the voxel of the image that is the first one now
    assert cropped.get_fdata()[0, 0, 0] == values[tuple(first.astype(int))]


def test_another_organ_has_its_middle_in_the_same_place():
    image, _ = pair((8, 10, 6))
    other, _ = pair((5, 5, 5))
    planted, label = replace_organ(image, other)
    np.testing.assert_allclose((planted.affine @ [2, 2, 2, 1])[:3], (image.affine @ [3.5, 4.5, 2.5, 1])[:3])
    assert not label.get_fdata().any()


def test_a_planted_skull_lies_around_the_brain():
    values = np.zeros((60, 60, 60), np.float32)
    values[25:35, 25:35, 25:35] = 100
    image = nib.Nifti1Image(values, np.eye(4))
    head = skull_on(image, image, np.random.default_rng(0), 3)[0].get_fdata()
    np.testing.assert_array_equal(head[25:35, 25:35, 25:35], 100)
    assert head[30, 30, 40] == 0  # 6 mm outside: skull
    assert head[30, 30, 47] > 50  # 13 mm: scalp


def test_the_area_under_the_curve_by_hand():
    assert _area([1, 2], [3, 4]) == 1
    assert _area([3, 4], [1, 2]) == 0
    assert _area([1, 3], [2]) == 0.5
    assert _area([1, 1], [1]) == 0.5


def rows():
    random = np.random.default_rng(0)
    for n in range(60):
        fault = "" if n < 30 else "noise"
        values = dict.fromkeys(REASONS, 0.0) | {name: float(random.normal()) for name in REASONS}
        values["agreement"] = float(random.normal(0.8 if not fault else 0.2, 0.05))
        pair = f"p{n % 30}"
        yield {"task": "cardiac", "pair": pair, "fault": fault, "dice": 0.9 if not fault else 0.4, **values}


def test_the_measure_that_tells_is_the_one_that_is_learned():
    recorded = list(rows())
    judge = learn(recorded)
    assert max(judge.measures, key=lambda name: judge.measures[name].weight) == "agreement"
    assert all(measure.weight >= 0 for measure in judge.measures.values())
    assert {judge(row).verdict for row in recorded if row["fault"]} == {"failed"}
    table = test(recorded, judge)
    assert "| noise | 30 | 0 | 0 | 0 | 30 | 1.000 |" in table


def test_a_fault_that_does_no_harm_is_left_out():
    recorded = list(rows())
    recorded[30]["dice"] = 0.88  # .02 below that without the fault
    good, bad = good_and_bad(recorded)
    assert len(good) == 30
    assert len(bad) == 29
