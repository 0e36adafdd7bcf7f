"""Dice and correlation by hand."""

import math

import pytest
import torch

from scripts.metrics import dice_per_class, ncc, uncounted_classes


def test_dice_by_hand():
    fixed = torch.tensor([1, 1, 1, 2, 2, 0])
    warped = torch.tensor([1, 1, 2, 2, 0, 0])
    # class 1: 2 * 2 / (3 + 2), class 2: 2 * 1 / (2 + 2)
    dice = dice_per_class(warped, fixed, moving=torch.tensor([0, 1, 2]))
    assert dice == pytest.approx({"1": 0.8, "2": 0.5, "mean": 0.65})


def test_a_class_that_vanished_counts_zero():
    dice = dice_per_class(torch.tensor([1, 1, 0]), torch.tensor([1, 1, 2]), moving=torch.tensor([1, 2]))
    assert dice == {"1": 1.0, "2": 0.0, "mean": 0.5}


def test_a_class_of_one_label_only_is_reported_and_not_counted():
    fixed, moving = torch.tensor([1, 3]), torch.tensor([1, 4])
    assert dice_per_class(torch.tensor([1, 4]), fixed, moving) == {"1": 1.0, "mean": 1.0}
    assert uncounted_classes(fixed, moving) == {"3": "only in label_fixed", "4": "only in label_moving"}


def test_without_a_common_class_the_mean_is_not_a_number():
    assert math.isnan(dice_per_class(torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))["mean"])


def test_ncc_by_hand():
    a, b = torch.tensor([1.0, 2.0, 3.0, 99.0]), torch.tensor([1.0, 3.0, 2.0, -5.0])
    assert ncc(a, b, a < 50) == pytest.approx(0.5)
    assert math.isnan(ncc(a, torch.ones(4), a < 50))
