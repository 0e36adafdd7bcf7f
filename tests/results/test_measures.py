"""Overlap, distances, similarity and end-point error by hand, and against SimpleITK on the same masks."""

import math

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from scripts.results.measures import (
    common_classes,
    dice_per_class,
    end_point_error,
    flatten,
    pearson,
    rescale,
    rmse,
    surface_distances,
)

from ..conftest import blobs


def test_dice_by_hand():
    fixed = torch.tensor([1, 1, 1, 2, 2, 0])
    warped = torch.tensor([1, 1, 2, 2, 0, 0])
    # class 1: 2 * 2 / (3 + 2), class 2: 2 * 1 / (2 + 2)
    assert dice_per_class(fixed, warped, [1, 2]) == pytest.approx({"1": 0.8, "2": 0.5, "mean": 0.65})


def test_a_class_that_vanished_counts_zero():
    fixed = torch.tensor([1, 1, 2])
    classes, _ = common_classes(fixed, moving=torch.tensor([1, 2]))
    assert dice_per_class(fixed, torch.tensor([1, 1, 0]), classes) == {"1": 1.0, "2": 0.0, "mean": 0.5}


def test_a_class_of_one_label_only_is_reported_and_not_counted():
    classes, others = common_classes(torch.tensor([0, 1, 3]), torch.tensor([0, 1, 4]))
    assert classes == [1]
    assert others == {"3": "only in label_fixed", "4": "only in label_moving"}


def test_without_a_class_the_mean_is_not_a_number():
    assert math.isnan(dice_per_class(torch.tensor([1]), torch.tensor([0]), [])["mean"])


def test_image_similarity_by_hand():
    a, b = torch.tensor([1.0, 2.0, 3.0, 99.0]), torch.tensor([1.0, 3.0, 2.0, -5.0])
    assert pearson(a, b, a < 50) == pytest.approx(0.5)
    assert math.isnan(pearson(a, torch.ones(4), a < 50))
    assert rmse(a, b, a < 50) == pytest.approx(math.sqrt(2 / 3))


def test_rescaling_is_that_of_the_preprocessing():
    # 0 ... 100: the percentiles 1 and 99 are 1 and 99
    reference = torch.arange(101.0)
    assert rescale(torch.tensor([-5.0, 1, 50, 99, 200]), reference).tolist() == [0, 0, 0.5, 1, 1]


def test_end_point_error_in_voxels_and_millimetres():
    ddf, truth = torch.zeros(3, 2, 1, 1), torch.zeros(3, 2, 1, 1)
    ddf[:, 0, 0, 0] = torch.tensor([3.0, 0, 4])  # of length 5, and in voxels of 1 x 2 x 0.5 mm sqrt(9 + 4)
    mask = torch.ones(2, 1, 1, dtype=torch.bool)
    error = end_point_error(ddf, truth, torch.diag(torch.tensor([1, 2, 0.5, 1])), mask)
    assert error == pytest.approx({"mean_voxel": 2.5, "mean_mm": math.sqrt(13) / 2})
    mask[0] = False
    assert end_point_error(ddf, truth, torch.eye(4), mask)["mean_voxel"] == 0


def test_flat_names_with_those_of_the_labels():
    metrics = {"dice": {"after": {"1": 0.5, "2": 0.25, "mean": 0.375}}, "ncc": 1.0}
    assert flatten(metrics, {"1": "LV"}) == {
        "dice.after.LV": 0.5,
        "dice.after.2": 0.25,
        "dice.after.mean": 0.375,
        "ncc": 1.0,
    }


SPACING = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(("axis", "distance"), [(0, 1.0), (1, 2.0), (2, 4.0)])
def test_each_axis_has_its_own_spacing(axis, distance):
    # a block of 4^3 and the same one voxel further: both far sides lie one voxel beyond the other block
    fixed = torch.zeros(9, 9, 9)
    fixed[2:6, 2:6, 2:6] = 1
    found = surface_distances(fixed, fixed.roll(1, axis), [1], SPACING)
    assert found["hausdorff"] == {"1": distance, "mean": distance}
    assert found["hausdorff95"]["1"] == distance


def test_surface_distances_by_hand():
    # rows of voxels, all of them surface: 0..3 and 2..6, 1.5 mm apart from each other; distances in voxels
    # 2 1 0 0 from the first, 0 0 1 2 3 from the second
    fixed, warped = torch.zeros(8, 1, 1), torch.zeros(8, 1, 1)
    warped[0:4], fixed[2:7] = 1, 1
    found = surface_distances(fixed, warped, [1], (1.5, 1, 1))
    assert found["hausdorff"]["1"] == pytest.approx(1.5 * 3)
    assert found["surface_distance"]["1"] == pytest.approx(1.5 * 9 / 9)
    # 95th percentiles: position 2.85 of 0 0 1 2, which is 1.85, and position 3.8 of 0 0 1 2 3, which is 2.8
    assert found["hausdorff95"]["1"] == pytest.approx(1.5 * 2.8)


def test_inside_a_volume_only_the_outermost_voxels_are_surface():
    # a cube of 5^3 and its inner 3^3: each of its 98 surface voxels is 1, sqrt(2) or sqrt(3) from the other surface
    fixed, warped = torch.zeros(7, 7, 7), torch.zeros(7, 7, 7)
    fixed[1:6, 1:6, 1:6] = 1
    warped[2:5, 2:5, 2:5] = 1
    found = surface_distances(fixed, warped, [1], (1, 1, 1))
    outward = 6 * 9 * 1 + 12 * 3 * math.sqrt(2) + 8 * math.sqrt(3)
    assert found["surface_distance"]["1"] == pytest.approx((outward + 26) / (98 + 26), rel=1e-6)
    assert found["hausdorff"]["1"] == pytest.approx(math.sqrt(3))


def test_the_distance_of_a_class_that_vanished_is_not_defined():
    fixed = torch.zeros(6, 1, 1)
    fixed[1], fixed[3] = 1, 2
    found = surface_distances(fixed, (fixed == 1).float(), [1, 2], (1, 1, 1))
    assert found["hausdorff"]["1"] == found["hausdorff"]["mean"] == 0
    assert all(math.isnan(found[measure]["2"]) for measure in found)
    assert math.isnan(surface_distances(fixed, fixed, [], (1, 1, 1))["hausdorff"]["mean"])
    assert math.isnan(surface_distances(0 * fixed, 0 * fixed, [1], (1, 1, 1))["hausdorff"]["1"])


def test_a_stack_is_measured_in_its_slices():
    # shifted by 1 voxel of 2 mm in the first slice and by 3 in the second; only one label reaches the third
    fixed, warped = torch.zeros(8, 3, 3), torch.zeros(8, 3, 3)
    fixed[2, 1, :2] = warped[3, 1, 0] = warped[5, 1, 1] = 1
    warped[0, 0, 2] = 1
    found = surface_distances(fixed, warped, [1], (2.0, 1.0, 0.1), by_slice=True)
    assert found["hausdorff"]["1"] == found["surface_distance"]["1"] == (2 + 6) / 2
    # as a volume, the neighbours across the slices are nearer
    assert surface_distances(fixed, warped, [1], (2.0, 1.0, 0.1))["surface_distance"]["1"] < 4


def by_simpleitk(first, second, spacing):
    """Hausdorff distance and average symmetric surface distance of two boolean arrays."""
    images = []
    for mask in (first, second):
        images.append(sitk.GetImageFromArray(mask.astype(np.uint8).T))  # (x, y, z) is the order of the spacing
        images[-1].SetSpacing([float(s) for s in spacing])
    hausdorff = sitk.HausdorffDistanceImageFilter()
    hausdorff.Execute(*images)
    contours = [sitk.LabelContour(image) for image in images]
    distances = []
    for contour, other in (contours, contours[::-1]):
        to_other = sitk.Abs(sitk.SignedMaurerDistanceMap(other, squaredDistance=False, useImageSpacing=True))
        distances.append(sitk.GetArrayFromImage(to_other)[sitk.GetArrayFromImage(contour) == 1])
    return hausdorff.GetHausdorffDistance(), np.concatenate(distances).mean()


@pytest.mark.parametrize("spacing", [(1.0, 2.0, 4.0), (3.0, 0.7, 1.1)])
def test_simpleitk_finds_the_same_distances_on_anisotropic_grids(spacing):
    fixed = np.pad((blobs((22, 18, 14)) > 600).astype(np.float32), 3)
    warped = np.pad((blobs((22, 18, 14)) > 640).astype(np.float32), 3)
    warped = np.roll(warped, (2, -1, 1), (0, 1, 2))
    found = surface_distances(torch.tensor(fixed), torch.tensor(warped), [1], spacing)
    hausdorff, mean = by_simpleitk(warped == 1, fixed == 1, spacing)
    assert found["hausdorff"]["1"] == pytest.approx(hausdorff, rel=1e-5)
    assert found["surface_distance"]["1"] == pytest.approx(mean, rel=1e-5)


def test_simpleitk_finds_the_same_distances_on_a_sample(samples):
    folder = samples / "hippocampus"
    paths = [folder / f"hippocampus_{number}" / "seg.nii.gz" for number in (327, 341)]
    first, second = (np.asarray(nib.load(path).dataobj) for path in paths)
    size = np.minimum(first.shape, second.shape)
    first, second = (np.pad(a[: size[0], : size[1], : size[2]].astype(np.float32), 1) for a in (first, second))
    spacing = (0.9, 1.0, 1.3)
    found = surface_distances(torch.tensor(second), torch.tensor(first), [1, 2], spacing)
    for label in (1, 2):
        hausdorff, mean = by_simpleitk(first == label, second == label, spacing)
        assert found["hausdorff"][str(label)] == pytest.approx(hausdorff, rel=1e-5)
        assert found["surface_distance"][str(label)] == pytest.approx(mean, rel=1e-5)


def test_simpleitk_finds_the_same_distances_in_the_slices_of_a_cardiac_sample(samples):
    path = samples / "sunnybrook" / "SC-N-10" / "SC-N-10"
    images = [nib.load(f"{path}_{frame}_gt.nii.gz") for frame in ("ED", "ES")]
    fixed, moving = (np.pad(np.asarray(i.dataobj).astype(np.float32), ((1, 1), (1, 1), (0, 0))) for i in images)
    spacing = (1.2, 1.7, 9.0)
    found = surface_distances(torch.tensor(fixed), torch.tensor(moving), [1], spacing, by_slice=True)
    slices = [k for k in range(fixed.shape[2]) if fixed[..., k].any() and moving[..., k].any()]
    assert len(slices) > 3
    expected = [by_simpleitk(moving[..., k] == 1, fixed[..., k] == 1, spacing[:2]) for k in slices]
    assert found["hausdorff"]["1"] == pytest.approx(np.mean([e[0] for e in expected]), rel=1e-5)
    assert found["surface_distance"]["1"] == pytest.approx(np.mean([e[1] for e in expected]), rel=1e-5)
