"""Ejection fractions of carried labels beside those of experts."""

import numpy as np
import pytest

from scripts import Registration
from scripts.tools.benchmark.ejection_fraction import agreement, limits

from ..conftest import blobs


def test_limits_of_agreement():
    """The standard deviation of 1 and 3 is the root of 2."""
    assert limits([1.0, 3.0]) == pytest.approx((2, 2 - 1.96 * 2**0.5, 2 + 1.96 * 2**0.5))


def test_a_heart_that_stands_still(save, tmp_path):
    """The label of end-systole has no cavity in the last slice of three, and half of it in the others."""
    i, j = np.meshgrid(*[np.arange(64) - 32] * 2, indexing="ij")
    label = np.repeat(np.where(np.hypot(i, j) < 10, 3, 0)[..., None], 3, -1).astype(np.uint8)
    systole = label * (j >= 0)[..., None]
    systole[..., 2] = 0
    for frame, drawn in (("ED", label), ("ES", systole)):
        save(f"patient001_{frame}.nii.gz", blobs((64, 64, 3)), np.diag([1.5, 1.5, 8, 1]))
        save(f"patient001_{frame}_gt.nii.gz", drawn.astype(np.uint8), np.diag([1.5, 1.5, 8, 1]))
    found = agreement(tmp_path, Registration.load("cardiac", refine_steps=0))
    half = 100 * (1 - (systole[..., 0] == 3).sum() / (label[..., 0] == 3).sum())
    assert found.carried == pytest.approx(0, abs=0.1)
    assert found.carried_both == pytest.approx(0, abs=0.1)
    assert found.expert == pytest.approx(100 - 2 / 3 * (100 - half), abs=0.01)
    assert found.expert_both == pytest.approx(half, abs=0.01)
