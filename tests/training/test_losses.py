"""Training losses by hand."""

import math

import pytest
import torch
from monai.losses import DiceLoss

from scripts.networks import LNCC
from scripts.networks.kernels.sampling import warp
from scripts.support.errors import InputError
from scripts.training.losses import RegistrationLoss, diffusion, folding, soft_dice


def shift(size, *components):
    """A constant ddf of one sample."""
    return torch.tensor(components).view(1, -1, *[1] * len(size)).expand(1, -1, *size).clone().float()


def test_diffusion_by_hand():
    # u_0 = 2i + 3j, u_1 = 0.5 j: |grad u|^2 = 4 + 9 + 0.25 everywhere
    i, j = torch.meshgrid(torch.arange(5.0), torch.arange(4.0), indexing="ij")
    ddf = torch.stack([2 * i + 3 * j, 0.5 * j])[None]
    assert diffusion(ddf).item() == pytest.approx(13.25)


def test_diffusion_sees_a_checkerboard():
    i, j = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    ddf = torch.zeros(1, 2, 6, 6)
    ddf[0, 0] = (i + j) % 2
    assert diffusion(ddf).item() == pytest.approx(2.0)  # every difference is 1, along both axes


def test_ssd_and_its_regularization_by_hand():
    moving, fixed = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)
    loss = RegistrationLoss("ssd", regularization_weight=0.1)
    i = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 1, 4, 4)
    ddf = torch.cat([i, torch.zeros_like(i)], 1)
    value = loss(ddf, {"image": torch.cat([moving, fixed], 1)})
    assert value.item() == pytest.approx(0.25 + 0.1 * 1.0)
    assert {name: term.item() for name, term in loss.terms.items()} == pytest.approx(
        {"similarity": 0.25, "regularization": 1.0}
    )


@pytest.mark.parametrize("similarity", ["ncc", LNCC(7)])
def test_correlation_is_best_for_the_right_shift(similarity):
    generator = torch.Generator().manual_seed(0)
    fixed = torch.zeros(1, 1, 16, 16)
    fixed[..., 3:13, 3:13] = torch.rand(10, 10, generator=generator)  # nothing leaves the image
    moving = 0.3 + 0.5 * fixed.roll((2, -1), (2, 3))  # moving(x + (2, -1)) is fixed(x), in other units
    loss = RegistrationLoss(similarity, regularization_weight=0)
    image = {"image": torch.cat([moving, fixed], 1)}
    right = loss(shift((16, 16), 2, -1), image)
    assert right < loss(shift((16, 16), 0, 0), image) - 0.3
    assert right < loss(shift((16, 16), -2, 1), image) - 0.3
    assert right.item() == pytest.approx(-1, abs=0.05)


def test_bending_is_zero_for_an_affine_field_and_diffusion_is_not():
    i = torch.arange(8.0).view(1, 1, 8, 1).expand(1, 1, 8, 8)
    ddf = torch.cat([0.1 * i, 0.2 * i], 1)
    image = {"image": torch.rand(1, 2, 8, 8)}
    terms = {}
    for name in ("bending", "diffusion"):
        loss = RegistrationLoss("ssd", regularization=name)
        loss(ddf, image)
        terms[name] = loss.terms["regularization"].item()
    assert terms["bending"] == pytest.approx(0, abs=1e-10)
    assert terms["diffusion"] == pytest.approx(0.05)


def test_the_label_loss_compares_the_named_classes():
    # class 7 moved by one row: with the right shift the loss is 0; class 9 is not asked for
    moving = torch.zeros(1, 1, 6, 6)
    moving[0, 0, 2:4, 1:5] = 7
    fixed = moving.roll(-1, 2)
    fixed[0, 0, 5, 5] = 9
    target = {"image": torch.rand(1, 2, 6, 6), "label_moving": moving, "label_fixed": fixed}
    loss = RegistrationLoss("ssd", regularization_weight=0, label_weight=1.0, classes=[7])
    loss(shift((6, 6), 1, 0), target)
    assert loss.terms["label"].item() == pytest.approx(0, abs=1e-5)
    loss(shift((6, 6), 0, 0), target)
    # 4 of 8 voxels overlap: Dice 2 * 4 / 16
    assert loss.terms["label"].item() == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("size", [(8, 7), (6, 5, 7)])
def test_soft_dice_is_that_of_warped_one_hot_labels(size):
    generator = torch.Generator().manual_seed(0)
    fixed, moving = torch.randint(0, 5, (2, 2, 1, *size), generator=generator) * 10  # 0, 10, ..., 40
    ddf = (4 * torch.rand(2, len(size), *size, generator=generator, dtype=torch.float64) - 2).requires_grad_()
    classes = [40, 10, 20]  # 30 is left out
    one_hot = [torch.cat([label == c for c in classes], 1).double() for label in (moving, fixed)]
    expected = 1 - DiceLoss(smooth_nr=0, smooth_dr=0)(warp(one_hot[0], ddf), one_hot[1])
    dice = soft_dice(fixed, moving, ddf, classes)
    assert dice.item() == pytest.approx(expected.item(), abs=1e-12)
    (gradient,) = torch.autograd.grad(dice, ddf)
    (expected_gradient,) = torch.autograd.grad(expected, ddf)
    torch.testing.assert_close(gradient, expected_gradient)


def test_soft_dice_counts_the_classes_that_a_pair_has():
    # class 1 overlaps fully, 2 is in the moving labels only, 3 in none
    moving = torch.tensor([[1, 1, 0], [0, 2, 0]]).view(1, 1, 2, 3)
    fixed = torch.tensor([[1, 1, 0], [0, 0, 0]]).view(1, 1, 2, 3)
    assert soft_dice(fixed, moving, torch.zeros(1, 2, 2, 3), [1, 2, 3]).item() == pytest.approx(0.5)


def test_folding_by_hand():
    # u_0 = -2 i: |J| = -1 everywhere, 1.1 short of 0.1; the identity is short of nothing
    i = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 1, 4, 3)
    assert folding(torch.cat([-2 * i, torch.zeros_like(i)], 1)).item() == pytest.approx(1.1)
    assert folding(torch.zeros(1, 3, 3, 3, 3)).item() == 0


def test_folding_is_seen_from_both_sides():
    # one voxel displaced by 1.5: only the difference before it is positive, only the one after it below -1
    ddf = torch.zeros(1, 2, 5, 2)
    ddf[0, 0, 2] = 1.5
    # |J| = 1 - 1.5 between voxels 2 and 3: at voxel 2 forwards, at voxel 3 backwards, 0.6 short in one row of five
    assert folding(ddf).item() == pytest.approx(0.6 / 5)
    image = {"image": torch.zeros(1, 2, 5, 2)}
    assert RegistrationLoss("ssd", regularization_weight=0, folding_weight=2)(ddf, image).item() == pytest.approx(0.24)


def test_every_step_weighs_a_factor_of_the_next():
    image = {"image": torch.cat([torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)], 1)}
    i = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 1, 4, 4)
    steps = [factor * torch.cat([i, torch.zeros_like(i)], 1) for factor in (1, 2, 3)]
    # similarity 1 and regularization 1, 4, 9
    every = RegistrationLoss("ssd", regularization_weight=1.0, step_decay=0.5)
    assert every({"ddfs": steps}, image).item() == pytest.approx((0.25 * 2 + 0.5 * 5 + 1 * 10) / 1.75)
    last = RegistrationLoss("ssd", regularization_weight=1.0)
    assert last({"ddfs": steps}, image).item() == last(steps[-1], image).item() == pytest.approx(10)


def test_the_features_are_compared_with_each_images_own_labels():
    moving = torch.tensor([[1, 1], [2, 0]]).view(1, 1, 2, 2)
    fixed = torch.tensor([[0, 1], [2, 0]]).view(1, 1, 2, 2)
    # one feature stands for both classes: right for the moving image, undecided for the fixed one
    features = ((moving > 0).float(), torch.full((1, 1, 2, 2), 0.5))
    loss = RegistrationLoss("ssd", regularization_weight=0, feature_weight=0.5, feature_classes=[[1, 2]])
    image = torch.zeros(1, 2, 2, 2)
    pred = {"ddfs": [torch.zeros(1, 2, 2, 2)], "features": features}
    value = loss(pred, {"image": image, "label_moving": moving, "label_fixed": fixed})
    # 1 - Dice: 0 and 1 - 2 * (2 * 0.5) / (4 * 0.5 + 2); cross-entropy: 0 and log 2
    expected = (0 + 0.5) / 2 + (0 + math.log(2)) / 2
    assert loss.terms["features"].item() == pytest.approx(expected, abs=1e-4)
    assert value.item() == pytest.approx(0.5 * expected, abs=1e-4)


def test_the_number_of_features_must_be_that_of_their_classes():
    loss = RegistrationLoss("ssd", feature_weight=1.0, feature_classes=[[1], [2]])
    pair = {"image": torch.zeros(1, 2, 4, 4), **dict.fromkeys(("label_moving", "label_fixed"), torch.ones(1, 1, 4, 4))}
    with pytest.raises(InputError, match=r"1 features, but feature_classes has 2 groups"):
        loss({"ddfs": [torch.zeros(1, 2, 4, 4)], "features": (torch.ones(1, 1, 4, 4),) * 2}, pair)


def test_a_batch_is_the_mean_of_its_samples():
    generator = torch.Generator().manual_seed(0)
    image, ddf = torch.rand(2, 2, 12, 12, generator=generator), torch.rand(2, 2, 12, 12, generator=generator)
    loss = RegistrationLoss(LNCC(5), regularization_weight=0.2)
    single = [loss(ddf[i : i + 1], {"image": image[i : i + 1]}).item() for i in range(2)]
    assert loss(ddf, {"image": image}).item() == pytest.approx(sum(single) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "mi"}, "unknown loss similarity 'mi': expected one of ssd, ncc, lncc"),
        ({"regularization": "l2"}, "unknown regularization 'l2': expected one of diffusion, bending"),
        ({"regularization_weight": -1.0}, "expected weights of at least 0"),
        ({"step_decay": 1.5}, "step_decay 1.5"),
        ({"label_weight": 1.0}, "no classes are known"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        RegistrationLoss(**options)
