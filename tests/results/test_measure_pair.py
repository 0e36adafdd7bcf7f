"""All measures of a registered pair, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scripts.deformation.grid import as_volume, by_image
from scripts.deformation.jacobian import jacobian_determinant
from scripts.images.intensities import find_range
from scripts.results.measures import MeasurePair
from scripts.support.errors import InputError
from scripts.support.keys import IMAGES

from ..conftest import meta, ramp


def registered(values, dims=3, **changes):
    """What arrives at the measures: an image registered to itself, which did not move."""
    image, limits = meta(values), find_range(values)
    known = {
        **{"fixed": image, "moving": image, "label_fixed": None, "label_moving": None},
        **{"floors": dict.fromkeys(IMAGES, -np.inf), "ranges": dict.fromkeys(IMAGES, limits)},
        **{"resampled": image, "warped": image, "ddf": torch.zeros(3, *values.shape), "true_ddf": None},
        **{"brain_masks": {}, **changes},
    }
    determinant = jacobian_determinant(by_image(known["ddf"], dims))
    return SimpleNamespace(jacobian=as_volume(determinant, dims)[None], **known)


@pytest.mark.parametrize(("dims", "folded"), [(2, 0.0), (3, 100 / 3)])
def test_a_stack_is_measured_in_plane_and_a_volume_in_3d(dims, folded):
    # the through-plane component folds between the slices 0 and 1 of three: 1 - 2 = -1, then 1 + 1
    ddf = torch.zeros(3, 6, 4, 3)
    ddf[2] = torch.tensor([0.0, -2.0, -1.0])
    metrics = MeasurePair(dims)(registered(ramp(), dims, ddf=ddf))
    assert metrics["folding"]["whole_grid"]["folding_percent"] == pytest.approx(folded)
    assert metrics["ncc"] == pytest.approx({"before": 1.0, "after": 1.0})
    assert metrics["rmse"] == {"before": 0.0, "after": 0.0}
    assert not {"dice", "hausdorff_mm", "end_point_error", "inverse"} & set(metrics)


def test_labels_give_dice_and_the_classes_that_do_not_count():
    fixed_label, moving_label = meta((ramp() > 2).float()), meta((ramp() > 2).float() + (ramp() > 5).float())
    warped = fixed_label.as_tensor()
    data = registered(
        ramp(),
        label_fixed=fixed_label,
        label_moving=moving_label,
        label_resampled=torch.zeros_like(warped),
        label_warped=warped,
    )
    metrics = MeasurePair(3)(data)
    assert metrics["dice"] == {"before": {"1": 0.0, "mean": 0.0}, "after": {"1": 1.0, "mean": 1.0}}
    assert metrics["dice_not_counted"] == {"2": "only in label_moving"}
    assert "hausdorff_mm" not in metrics
    metrics = MeasurePair(3, surfaces=True)(data)
    assert metrics["distance_undefined"] == {"before": 1, "after": 0}
    assert metrics["surface_distance_mm"]["after"] == {"1": 0, "mean": 0}
    assert np.isnan(metrics["hausdorff95_mm"]["before"]["1"])


def test_only_the_chosen_slices_of_a_stack_are_measured():
    # five slices, of which 0, 0.5 and 1 are the first, third and last; the second and fourth are spoilt
    values = ramp((6, 4, 5))
    moving, label = values.clone(), (values > 3).float()
    moving[..., [1, 3]] = torch.rand(6, 4, 2)
    warped_label = label.clone()
    warped_label[..., [1, 3]] = 0
    ddf = torch.zeros(3, 6, 4, 5)
    ddf[0, ..., 1] = torch.tensor([0.0, 0, -3, 0, 0, 0])[:, None]
    data = registered(
        values,
        dims=2,
        ddf=ddf,
        warped=moving[None],
        label_fixed=meta(label),
        label_moving=meta(label),
        label_resampled=warped_label[None],
        label_warped=warped_label[None],
    )
    everything = MeasurePair(2, surfaces=True)(data)
    chosen = MeasurePair(2, surfaces=True, slices=[0, 0.5, 1])(data)
    assert everything["dice"]["after"]["1"] == pytest.approx(2 * 3 / (3 + 5))
    assert everything["folding"]["whole_grid"]["folding_percent"] > 0
    assert chosen["dice"]["after"]["1"] == 1
    assert chosen["ncc"]["after"] == pytest.approx(1)
    assert chosen["folding"]["whole_grid"]["folding_percent"] == 0
    assert chosen["folding"]["foreground"]["folding_percent"] == 0
    assert chosen["surface_distance_mm"]["after"]["1"] == 0


@pytest.mark.parametrize(("dims", "slices"), [(3, [0.5]), (2, [1.5]), (2, [])])
def test_slices_that_cannot_be(dims, slices):
    with pytest.raises(InputError, match=r"slices: found .*expected positions from 0 to 1, in 2D"):
        MeasurePair(dims, slices=slices)


@pytest.mark.parametrize("background", [0.0, -1000.0])
def test_the_foreground_is_where_the_fixed_image_is_above_its_minimum(background):
    values = ramp()
    values[3:] = background
    # folds between rows 4 and 5, and misses the truth in row 5, both outside the foreground
    ddf = torch.zeros(3, 6, 4, 3)
    ddf[0] = torch.tensor([0.0, 0, 0, 0, 0, -2]).view(-1, 1, 1)
    metrics = MeasurePair(3)(registered(values, ddf=ddf, true_ddf=torch.zeros_like(ddf)))
    assert metrics["folding"]["foreground"]["folding_percent"] == 0
    # the last row repeats the difference before it, so both count
    assert metrics["folding"]["whole_grid"]["folding_percent"] == pytest.approx(100 * 2 / 6)
    assert metrics["end_point_error"]["foreground"] == {"mean_voxel": 0, "mean_mm": 0}
    assert metrics["end_point_error"]["whole_grid"]["mean_voxel"] == pytest.approx(2 / 6)


def test_the_foreground_is_the_brain_where_it_is_known():
    values, brain = ramp(), torch.zeros(6, 4, 3)
    brain[:3] = 1
    ddf = torch.zeros(3, 6, 4, 3)
    ddf[0] = torch.tensor([0.0, 0, 0, 0, 0, -2]).view(-1, 1, 1)  # folds between rows 4 and 5
    masks = {"brain_mask_fixed": meta(brain)}
    metrics = MeasurePair(3)(registered(values, ddf=ddf, brain_masks=masks))
    assert metrics["folding"]["foreground"]["folding_percent"] == 0
    assert metrics["folding"]["whole_grid"]["folding_percent"] == pytest.approx(100 * 2 / 6)


def test_ids_that_vanish_are_named_on_the_screen_and_in_the_metrics(caplog):
    moving = meta(torch.arange(72.0).view(6, 4, 3) % 25)  # 0 to 24
    after = torch.where(moving.as_tensor() > 22, 0, moving.as_tensor())
    metrics = MeasurePair(3)(registered(ramp(), label_moving=moving, label_warped=after))
    assert metrics["lost_labels"] == [23, 24]
    assert "dice" not in metrics
    assert "loses 2 of 24 ids, by nearest neighbour or outside the fixed image: 23, 24." in caplog.text
    metrics = MeasurePair(3)(registered(ramp(), label_moving=moving, label_warped=after * 0))
    assert len(metrics["lost_labels"]) == 24
    assert caplog.text.rstrip().endswith("18, 19, 20, ...."), "a line stays a line"
    assert "lost_labels" not in MeasurePair(3)(registered(ramp(), label_moving=moving, label_warped=moving))


def test_label_maps_without_a_common_id_are_named(caplog):
    fixed, moving = meta((ramp() > 2).float()), meta(255 * (ramp() > 2).float())
    data = {"label_resampled": moving.as_tensor(), "label_warped": moving.as_tensor()}
    metrics = MeasurePair(3)(registered(ramp(), label_fixed=fixed, label_moving=moving, **data))
    assert np.isnan(metrics["dice"]["after"]["mean"])
    assert "have no id in common, but 1 only in label_fixed, 255 only in label_moving: there is no Dice." in caplog.text


def test_labels_that_fit_less_well_afterwards_are_a_warning(caplog):
    fixed = (ramp() > 2).float()
    warped = fixed.clone()
    warped[5] = 0  # one of the four rows of the label: Dice 2 * 3 / (3 + 4)
    labels = {"label_fixed": meta(fixed), "label_moving": meta(fixed)}
    worse = registered(ramp(), **labels, label_resampled=fixed[None], label_warped=warped[None])
    MeasurePair(3)(worse)
    assert "less well after the registration than before: Dice 0.857, 1.000 before." in caplog.text
    caplog.clear()
    better = registered(ramp(), **labels, label_resampled=warped[None], label_warped=fixed[None])
    MeasurePair(3)(better)
    assert not caplog.text
